"""What a container's manifest says, made true outside of a container. Pure.

Environment variables are resolved as the kubelet does. Two things that a container has of its own
and a process has not are written into arguments, environment and configuration files instead: its
file system (paths of mounts become directories of the pod) and its network (``0.0.0.0`` and
``127.0.0.1`` become the pod's loopback address).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_REFERENCE = re.compile(r"\$(\$|\(([-._a-zA-Z0-9]+)\))")
_OWN_ADDRESS = re.compile(r"(?<![\d.])(?:0\.0\.0\.0|127\.0\.0\.1)(?![\d.])")
_KEYED_FIELD = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")


class PodSpecError(Exception):
    """The manifest asks for something that the harness cannot do; the text names it."""


def expand(text: str, values: Mapping[str, str]) -> str:
    """Replace ``$(NAME)``; unknown names stay, ``$$`` is a dollar sign."""

    def replaced(found: re.Match[str]) -> str:
        if found[1] == "$":
            return "$"
        return values.get(found[2], found[0])

    return _REFERENCE.sub(replaced, text)


def field_value(pod: Mapping[str, Any], path: str, *, address: str) -> str:
    """A ``fieldRef`` of the downward API. Raises PodSpecError for a path that is not one."""
    metadata, spec = pod["metadata"], pod["spec"]
    keyed = _KEYED_FIELD.fullmatch(path)
    if keyed:
        return str((metadata.get(keyed[1]) or {}).get(keyed[2], ""))
    match path:
        case "metadata.name" | "metadata.namespace" | "metadata.uid":
            return str(metadata[path.removeprefix("metadata.")])
        case "spec.nodeName":
            return str(spec["nodeName"])
        case "spec.serviceAccountName":
            return str(spec.get("serviceAccountName", "default"))
        case "status.podIP" | "status.podIPs" | "status.hostIP":
            return address
    raise PodSpecError(f'fieldRef "{path}" is not supported')


def environment(
    pod: Mapping[str, Any], container: Mapping[str, Any], *, given: Mapping[str, str], address: str
) -> dict[str, str]:
    """Variables of a container.

    Args:
        pod: As stored.
        container: Of its spec.
        given: What the image and the cluster set; the container's own win.
        address: Of the pod.

    Raises:
        PodSpecError: A value comes from where the harness cannot look.
    """
    values = dict(given)
    for variable in container.get("env") or ():
        source = variable.get("valueFrom")
        if source is None:
            values[variable["name"]] = expand(variable.get("value", ""), values)
        elif "fieldRef" in source:
            path = source["fieldRef"]["fieldPath"]
            values[variable["name"]] = field_value(pod, path, address=address)
        else:
            raise PodSpecError(f"env {variable['name']}: valueFrom {', '.join(source)}")
    if container.get("envFrom"):
        raise PodSpecError("envFrom is not supported")
    return values


@dataclass(frozen=True, slots=True, kw_only=True)
class PreStop:
    """What happens between the wish to stop a container and SIGTERM.

    Attributes:
        seconds: Sleep.
        command: Run; empty for nothing.
    """

    seconds: float = 0.0
    command: tuple[str, ...] = ()


def pre_stop_of(container: Mapping[str, Any]) -> PreStop:
    """The preStop hook of a container. Raises PodSpecError for one that the harness has not."""
    hook = (container.get("lifecycle") or {}).get("preStop") or {}
    if "sleep" in hook:
        return PreStop(seconds=float(hook["sleep"]["seconds"]))
    if "exec" in hook:
        return PreStop(command=tuple(hook["exec"]["command"]))
    if hook:
        raise PodSpecError(f"container {container['name']}: preStop {', '.join(hook)}")
    return PreStop()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewriter:
    """Where things of a container are outside of it.

    Attributes:
        mounts: Directories here, by mount path.
        address: Of the pod.
    """

    mounts: Mapping[str, Path]
    address: str
    _pattern: re.Pattern[str] = field(init=False)

    def __post_init__(self) -> None:
        """Compile, longest path first: a mount may lie in another one."""
        paths = sorted(self.mounts, key=len, reverse=True)
        joined = "|".join(map(re.escape, paths)) or "(?!)"
        object.__setattr__(self, "_pattern", re.compile(rf"(?<![\w./-])({joined})(?![\w.-])"))

    def __call__(self, text: str) -> str:
        """Rewrite paths and addresses."""
        moved = self._pattern.sub(lambda found: str(self.mounts[found[1]]), text)
        return _OWN_ADDRESS.sub(self.address, moved)
