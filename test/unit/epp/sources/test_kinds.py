import yaml

from epp.kube.resource import PODS
from epp.sources.kinds import KINDS, TYPES
from epp_api.crd_files import crd_files


def test_there_is_a_kind_for_every_crd_and_one_for_pods() -> None:
    in_files = set()
    for path in crd_files().values():
        spec = yaml.safe_load(path.read_text())["spec"]
        for version in spec["versions"]:
            names = spec["names"]
            in_files.add((spec["group"], version["name"], names["plural"], names["kind"]))

    resources = [kind.resource for kind in KINDS]
    in_table = {(r.group, r.version, r.plural, r.kind) for r in resources if r is not PODS}

    assert in_table == in_files
    assert PODS in resources


def test_no_kind_is_listed_twice() -> None:
    assert len(TYPES) == len(KINDS)
