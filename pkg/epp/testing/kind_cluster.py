"""placeholder"""


class KindCluster: ...
