"""Kubeconfig files: parsed strictly, merged as kubectl does, one context chosen.

Of several files the first that names a cluster, user, context or the current context wins, and a
relative path is relative to the file that has it. Every error names the file and the field; values
are shown only where they cannot be secrets.
Reference: kubernetes.io, "Organizing cluster access using kubeconfig files" (merge rules).
"""

import base64
import binascii
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import yaml

from epp.errors import ConfigError

_MAX_BYTES = 4 * 1024 * 1024


class _Kebab(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """Fields are spelt with hyphens; unknown ones are ignored, as kubectl does."""


class Cluster(_Kebab, frozen=True, kw_only=True):
    """How to reach and trust an API server."""

    server: str | None = None
    certificate_authority: str | None = None
    certificate_authority_data: str | None = None
    insecure_skip_tls_verify: bool | None = None
    tls_server_name: str | None = None
    proxy_url: str | None = None


class ExecEnv(msgspec.Struct, frozen=True):
    """An environment variable of a plugin."""

    name: str
    value: str


class Exec(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A credential plugin."""

    command: str
    api_version: str
    args: list[str] | None = None
    env: list[ExecEnv] | None = None
    provide_cluster_info: bool | None = None
    install_hint: str | None = None


class Provider(msgspec.Struct, frozen=True, kw_only=True):
    """The older plugin mechanism."""

    name: str
    config: dict[str, str] | None = None


class User(_Kebab, frozen=True, kw_only=True):
    """Who we are."""

    client_certificate: str | None = None
    client_certificate_data: str | None = None
    client_key: str | None = None
    client_key_data: str | None = None
    token: str | None = None
    token_file: str | None = msgspec.field(default=None, name="tokenFile")
    username: str | None = None
    password: str | None = None
    exec: Exec | None = None
    auth_provider: Provider | None = None
    impersonate: str | None = msgspec.field(default=None, name="as")


class Context(_Kebab, frozen=True, kw_only=True):
    """A cluster, a user and a namespace."""

    cluster: str = ""
    user: str = ""
    namespace: str | None = None


class _NamedCluster(msgspec.Struct, frozen=True):
    name: str
    cluster: Cluster | None = None


class _NamedUser(msgspec.Struct, frozen=True):
    name: str
    user: User | None = None


class _NamedContext(msgspec.Struct, frozen=True):
    name: str
    context: Context | None = None


class _Document(_Kebab, frozen=True, kw_only=True):
    current_context: str | None = None
    clusters: list[_NamedCluster] | None = None
    users: list[_NamedUser] | None = None
    contexts: list[_NamedContext] | None = None


class Place(NamedTuple):
    """Where something is written, to name it in errors and to resolve paths.

    Attributes:
        file: The kubeconfig file.
        field: Path of the entry, e.g. ``users[name=admin].user``.
    """

    file: Path
    field: str

    def error(self, field: str, message: str, value: object = None) -> ConfigError:
        """An error about one field of the entry."""
        path = f"{self.field}.{field}" if field else self.field
        return ConfigError(message, source=str(self.file), field=path, value=value)

    def resolve(self, path: str) -> Path:
        """A path that is written here, made absolute."""
        return Path(os.path.normpath(self.file.absolute().parent / path))


class Chosen(NamedTuple):
    """One context with what it refers to.

    Attributes:
        name: Name of the context.
        namespace: Its namespace; empty when it has none.
        cluster: Its cluster.
        cluster_place: Where that is written.
        user: Its user; an empty one when the context names none.
        user_place: Where that is written.
    """

    name: str
    namespace: str
    cluster: Cluster
    cluster_place: Place
    user: User
    user_place: Place


def choose_context(files: Sequence[Path], context: str = "") -> Chosen:
    """Read kubeconfig files and choose a context.

    Args:
        files: In order of precedence; every one exists.
        context: Name of the context; empty is the current one.

    Raises:
        ConfigError: A file cannot be read or understood, or names something that is not there.
    """
    documents = [(file, _read(file)) for file in files]
    where = Place(files[0], "contexts")
    name = context or _current(documents)
    if not name:
        raise ConfigError("no context is chosen", source=str(files[0]), field="current-context")
    contexts = _merge(documents, "context")
    found = contexts.get(name)
    if found is None:
        raise ConfigError(
            f"no such context; there are: {_names(contexts)}",
            source=str(where.file),
            field=where.field if context else "current-context",
            value=name,
        )
    place, entry = found
    if not isinstance(entry, Context):
        raise place.error("", "is empty")
    cluster_place, cluster = _refer(documents, "cluster", entry.cluster, place)
    user_place, user = (
        _refer(documents, "user", entry.user, place) if entry.user else (place, User())
    )
    if not isinstance(cluster, Cluster) or not isinstance(user, User):
        raise place.error("", "refers to an empty cluster or user")
    return Chosen(name, entry.namespace or "", cluster, cluster_place, user, user_place)


def decode_base64(place: Place, field: str, data: str) -> bytes:
    """Decode a ``…-data`` field. Raises ConfigError that names it, never its value."""
    try:
        return base64.b64decode("".join(data.split()), validate=True)
    except binascii.Error as exc:
        raise place.error(field, "is not base64") from exc


def read_file(place: Place, field: str, path: str) -> bytes:
    """Read the file that a field names. Raises ConfigError that names field and file."""
    file = place.resolve(path)
    try:
        return file.read_bytes()
    except OSError as exc:
        raise place.error(field, f"cannot be read: {exc.strerror}", str(file)) from exc


_Entry = Cluster | User | Context | None
_Documents = Sequence[tuple[Path, _Document]]


def _read(file: Path) -> _Document:
    try:
        with file.open("rb") as stream:
            raw = stream.read(_MAX_BYTES + 1)
    except OSError as exc:
        raise ConfigError(f"cannot be read: {exc.strerror}", source=str(file)) from exc
    if len(raw) > _MAX_BYTES:
        raise ConfigError(f"is longer than {_MAX_BYTES} bytes", source=str(file))
    try:
        content = yaml.safe_load(raw)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as exc:
        # Only the place: the text around it may be a secret.
        mark = getattr(exc, "problem_mark", None)
        line = "" if mark is None else f" (line {mark.line + 1})"
        raise ConfigError(f"is not YAML{line}", source=str(file)) from exc
    try:
        return msgspec.convert(content if content is not None else {}, _Document)
    except msgspec.ValidationError as exc:
        message, _, field = str(exc).partition(" - at `$.")
        raise ConfigError(message, source=str(file), field=field.rstrip("`")) from exc


def _current(documents: _Documents) -> str:
    return next((doc.current_context for _, doc in documents if doc.current_context), "")


def _merge(documents: _Documents, kind: str) -> Mapping[str, tuple[Place, _Entry]]:
    merged: dict[str, tuple[Place, _Entry]] = {}
    for file, document in documents:
        for named in getattr(document, f"{kind}s") or ():
            place = Place(file, f"{kind}s[name={named.name}].{kind}")
            merged.setdefault(named.name, (place, getattr(named, kind)))
    return merged


def _refer(documents: _Documents, kind: str, name: str, referrer: Place) -> tuple[Place, _Entry]:
    entries = _merge(documents, kind)
    if name not in entries:
        raise referrer.error(kind, f"no such {kind}; there are: {_names(entries)}", name)
    place, entry = entries[name]
    if entry is None:
        raise place.error("", "is empty")
    return place, entry


def _names(entries: Mapping[str, object]) -> str:
    return ", ".join(sorted(entries)[:10]) or "none"
