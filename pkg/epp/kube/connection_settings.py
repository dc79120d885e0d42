"""ConnectionSettings: where the API server is, how to trust it, and who we are to it.

Values only, made by ``config.load_settings``. Secrets have no representation: a settings object
may be logged.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from epp.kube.client_certificate import ClientCertificate

DEFAULT_NAMESPACE = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Anonymous:
    """We send no Authorization header: a client certificate may tell who we are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticAuthorization:
    """A token, or user and password, that never changes.

    Attributes:
        header: The Authorization header's value.
    """

    header: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenFile:
    """A bearer token in a file that somebody rotates.

    Attributes:
        path: Absolute.
    """

    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecPlugin:
    """A program that prints credentials, as cloud providers ship them.

    Attributes:
        command: Name or absolute path.
        args: Its arguments; may hold secrets.
        env: The plugin's whole environment; may hold secrets.
        api_version: ``client.authentication.k8s.io/…``.
        cluster: The ``spec.cluster`` it is given, None when it did not ask.
        install_hint: What to tell an operator who does not have it.
    """

    command: str
    args: tuple[str, ...] = field(default=(), repr=False)
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    api_version: str
    cluster: Mapping[str, object] | None = field(default=None, repr=False)
    install_hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthProvider:
    """The older plugin mechanism, of which OpenID Connect is left.

    Attributes:
        name: ``oidc``.
        config: Its parameters; holds secrets.
    """

    name: str
    config: Mapping[str, str] = field(repr=False)


Identity = Anonymous | StaticAuthorization | TokenFile | ExecPlugin | AuthProvider


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionSettings:
    """How to reach one API server.

    Attributes:
        server: Base URL without a trailing slash; may have a path.
        origin: Where this comes from, for logs and errors.
        namespace: The context's namespace, or the pod's.
        ca_data: PEM of the authorities to trust; empty trusts the system's.
        insecure_skip_tls_verify: Trust whoever answers.
        tls_server_name: Name that the server's certificate must have; empty is the URL's host.
        proxy: URL of a proxy, empty for a direct way; may hold a password.
        client_certificate: For the TLS handshake, or None.
        identity: What the Authorization header is made of.
    """

    server: str
    origin: str = ""
    namespace: str = DEFAULT_NAMESPACE
    ca_data: str = field(default="", repr=False)
    insecure_skip_tls_verify: bool = False
    tls_server_name: str = ""
    proxy: str = field(default="", repr=False)
    client_certificate: ClientCertificate | None = None
    identity: Identity = Anonymous()
