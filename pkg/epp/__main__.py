"""``python -m epp`` is the ``epp`` command."""

import sys

from epp_cmd.main import main

if __name__ == "__main__":
    sys.exit(main())
