"""Check that everything that rendered manifests refer to is there, with the ports and labels meant.

``kustomize build config/default | python hack/lint_manifests.py`` prints one line for each problem;
``--external Secret/mine`` names what is there without being rendered, and may be repeated;
``--external Gateway/infra/mine`` names it in another namespace than the one that refers to it.
It knows the kinds that ``config/`` uses and the usual workloads, and nothing of what a kind admits:
that is for the API server to say. Input of any shape gives lines, never a traceback.
"""

import argparse
import sys
from collections.abc import Collection, Iterator, Sequence

import yaml

import lint_core
import lint_gateways
import lint_pickers
from manifest_objects import KubeObject, MalformedError, Objects

RULES = (*lint_core.RULES, *lint_gateways.RULES, *lint_pickers.RULES)


def problems(
    manifests: Collection[object], external: Collection[tuple[str, str]] = ()
) -> list[str]:
    """One line for each reference that leads nowhere; empty when all is well.

    Args:
        manifests: Documents as YAML gives them.
        external: Kind and name of what is there besides.
    """
    objects = Objects(manifests, external)
    lines = [*objects.malformed]
    for found in objects.all:
        lines += _problems_of(objects, found)
    return list(dict.fromkeys(lines))


def _problems_of(objects: Objects, found: KubeObject) -> Iterator[str]:
    for kinds, rule in RULES:
        if kinds and found.kind not in kinds:
            continue
        try:
            yield from rule(objects, found)
        except MalformedError as error:
            yield str(error)


def main(argv: Sequence[str] | None = None) -> int:
    """Check what comes on standard input; 1 when something is wrong, 2 when it is no YAML."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--external", action="append", default=[], metavar="KIND/[NAMESPACE/]NAME")
    names = [name.partition("/") for name in parser.parse_args(argv).external]
    try:
        manifests = list(yaml.safe_load_all(sys.stdin))
    except yaml.YAMLError as error:
        print(f"standard input is no YAML: {error}", file=sys.stderr)
        return 2
    found = problems(manifests, [(kind, name) for kind, _, name in names])
    for problem in found:
        print(problem, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
