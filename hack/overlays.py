"""The overlays of ``config/``: which components fit which, and how a combination is rendered.

``python hack/overlays.py`` prints the names of all combinations; with names as arguments, what
kustomize makes of them.
"""

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "config"
TIMEOUT_SECONDS = 60.0

Manifest = dict[str, Any]

_ANYWHERE = ("monitoring", "ha", "serving-certificate")
_FITTING = (
    ("default", ("httproute", *_ANYWHERE)),
    ("overlays/kgateway", _ANYWHERE),
    ("overlays/istio", ("lean-path-istio", *_ANYWHERE)),
    # Each Envoy asks the endpoint picker beside it, without TLS: a certificate would serve nobody,
    # and one that does not lead would never be ready.
    ("overlays/standalone", ("monitoring",)),
)
_WITH_LEAN_PATH = (("overlays/kgateway", "lean-path-kgateway", ("monitoring",)),)

EXTERNAL = {
    ("Gateway", "inference-gateway"): "of the user, where the route is used without an overlay",
    ("Secret", "epp-serving-cert"): "holds a private key: made by cert-manager or by hand",
}
"""What the manifests refer to and do not bring: kind, name, and why."""


class RenderError(Exception):
    """kustomize is missing, or refuses; the text is its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Combination:
    """An overlay of ours with components, as a user's own kustomization puts them together.

    Attributes:
        overlay: Directory below ``config``.
        components: Names below ``config/components``, in the order of the kustomization.
        prefix: namePrefix of the user.
        namespace: Namespace of the user; empty keeps ours.
        patches: Patches of the user, as in a kustomization.
    """

    overlay: str
    components: tuple[str, ...] = ()
    prefix: str = ""
    namespace: str = ""
    patches: tuple[Manifest, ...] = ()

    @property
    def name(self) -> str:
        """``istio+ha``."""
        return "+".join((self.overlay.removeprefix("overlays/"), *self.components))


def combinations() -> list[Combination]:
    """Every overlay with every set of components that fits it."""
    found = [
        Combination(overlay=overlay, components=chosen)
        for overlay, fitting in _FITTING
        for chosen in _subsets(fitting)
    ]
    found += [
        Combination(overlay=overlay, components=(first, *chosen))
        for overlay, first, fitting in _WITH_LEAN_PATH
        for chosen in _subsets(fitting)
    ]
    return found


def find_kustomize() -> Path:
    """Path of the binary, from ``hack/kustomize.py``, which may build it.

    Raises:
        RenderError: It cannot be had.
    """
    done = subprocess.run(
        [sys.executable, str(ROOT / "hack" / "kustomize.py")],
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        check=False,
        text=True,
    )
    if done.returncode != 0:
        raise RenderError("kustomize cannot be had, see above")
    return Path(done.stdout.strip().splitlines()[-1])


def render(kustomize: Path, combination: Combination) -> list[Manifest]:
    """Return the objects.

    Raises:
        RenderError: kustomize refuses.
    """
    with tempfile.TemporaryDirectory() as directory:
        kustomization = _kustomization(combination, Path(directory).resolve())
        (Path(directory) / "kustomization.yaml").write_text(yaml.safe_dump(kustomization), "utf-8")
        return build(kustomize, Path(directory))


def build(kustomize: Path, directory: Path) -> list[Manifest]:
    """Return the objects of a directory with a kustomization.

    Raises:
        RenderError: kustomize refuses.
    """
    done = subprocess.run(
        [str(kustomize), "build", str(directory)],
        capture_output=True,
        stdin=subprocess.DEVNULL,
        check=False,
        text=True,
        timeout=TIMEOUT_SECONDS,
    )
    if done.returncode != 0:
        raise RenderError(done.stderr.strip())
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def _kustomization(combination: Combination, directory: Path) -> Manifest:
    def relative(path: str) -> str:
        return os.path.relpath(CONFIG / path, directory)

    kustomization: Manifest = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [relative(combination.overlay)],
        "components": [relative(f"components/{name}") for name in combination.components],
        "patches": list(combination.patches),
        "namePrefix": combination.prefix,
    }
    if combination.namespace:
        kustomization["namespace"] = combination.namespace
    elif combination.components:
        kustomization["namespace"] = "inference"  # objects of components have none of their own
    return kustomization


def _subsets(names: Sequence[str]) -> list[tuple[str, ...]]:
    sizes = range(len(names) + 1)
    return [chosen for size in sizes for chosen in itertools.combinations(names, size)]


def main(argv: Sequence[str] | None = None) -> int:
    """Print names, or manifests."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", metavar="NAME", help="e.g. istio+ha")
    chosen = parser.parse_args(argv).names
    known = {combination.name: combination for combination in combinations()}
    if not chosen:
        print("\n".join(known))
        return 0
    unknown = [name for name in chosen if name not in known]
    if unknown:
        print(f"no such combination: {unknown[0]}", file=sys.stderr)
        return 2
    try:
        kustomize = find_kustomize()
        for name in chosen:
            print(yaml.safe_dump_all(render(kustomize, known[name]), sort_keys=False), end="")
    except RenderError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
