"""Where the CRDs of this API lie: inside an installed wheel, or in the checkout."""

from collections.abc import Mapping
from pathlib import Path

_PACKAGE = Path(__file__).parent


def crd_files() -> Mapping[str, Path]:
    """CRD files by name. Raises FileNotFoundError when the installation lacks them."""
    for folder in (_PACKAGE / "crds", _PACKAGE.parents[1] / "config" / "crd" / "bases"):
        found = {path.name: path for path in sorted(folder.glob("*.yaml"))}
        if found:
            return found
    raise FileNotFoundError(f"no CRD files in {_PACKAGE / 'crds'}: broken installation")
