"""Images of the rendered manifests, as programs of this machine.

An image is known by its name without registry tag; what a container's command names in it is
replaced by the same program here, the arguments stay. An unknown image is an error, as one that
cannot be pulled.
"""

import sys
from collections.abc import Callable, Mapping, Sequence

from epp.standalone.plan import find_envoy


class UnknownImageError(Exception):
    """There is no program here for an image or for its command."""


def _epp() -> list[str]:
    return [sys.executable, "-m", "epp"]


def _python() -> list[str]:
    return [sys.executable]


def _envoy() -> list[str]:
    return [find_envoy(None)]


_PROGRAMS: Mapping[str, Mapping[str, Callable[[], list[str]]]] = {
    "endpoint-picker": {"epp": _epp, "python": _python},
    "envoyproxy/envoy": {"/usr/local/bin/envoy": _envoy},
}


def local_command(image: str, words: Sequence[str], *, address: str) -> list[str]:
    """Program and arguments that stand for a container's.

    ``epp serve`` listens on every address by default: in a pod that is the pod's, so here it is
    told the pod's by ``--bind-address``, which is the only argument added.

    Args:
        image: With its tag.
        words: Command and arguments; images' own entry points are not known here.
        address: Of the pod.

    Raises:
        UnknownImageError: Names image or command.
    """
    programs = _PROGRAMS.get(image.rpartition(":")[0])
    if programs is None:
        raise UnknownImageError(f'no program stands for the image "{image}"')
    if not words or words[0] not in programs:
        raise UnknownImageError(f'no program stands for {list(words[:1])} of the image "{image}"')
    found = [*programs[words[0]](), *words[1:]]
    if words[0] == "epp" and words[1:2] == ["serve"]:
        found.append(f"--bind-address={address}")
    return found
