"""TlsContext: TLS of a native server's port.

It is an ``ssl.SSLContext`` like any other to the event loop, but every connection is wrapped by
the context that was loaded last. Contexts are made and replaced whole, so a connection never sees
a certificate without its key, and a replaced certificate of another key type is gone. Connections
that are open keep theirs.

A handshake that fails, a plaintext client's among them, is one line at debug and one count; one
that is given up, because it takes too long or its client leaves, is a count.
"""

import contextlib
import os
import ssl
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from typing import Any, Self

from epp.errors import TransportError
from epp.logs import get_logger

log = get_logger(__name__)

ALPN = ("h2",)
LEGACY_CIPHERS = "DEFAULT"
"""OpenSSL 3 speaks nothing below TLS 1.2 unless its security level is lowered, too."""


class CipherSuitesError(TransportError):
    """OpenSSL has none of the cipher suites that were asked for."""


class TlsContext(ssl.SSLContext):
    """TLS of a port whose certificate can be replaced.

    Args:
        certificate: The chain, PEM.
        key: Its key without password, PEM.
        client_ca: Clients must show a certificate of one of these CAs, PEM; empty takes everybody.
        minimum_version: Oldest version of TLS.
        ciphers: Suites up to TLS 1.2 by OpenSSL's names, with colons; empty leaves the choice to
            OpenSSL. Those of TLS 1.3 cannot be chosen.

    Attributes:
        errors: Counts failed handshakes as ``tls handshake`` and those given up as
            ``tls unfinished``; a server counts elsewhere by putting its own counter here.

    Raises:
        TransportError: One of them cannot be served; nothing of a key is shown.
    """

    errors: Counter[str]
    _client_ca: bytes
    _minimum_version: ssl.TLSVersion
    _ciphers: str
    _current: ssl.SSLContext

    def __new__(cls, **_: object) -> Self:
        """Make the empty context that the event loop sees."""
        return super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)

    def __init__(
        self,
        *,
        certificate: bytes,
        key: bytes,
        client_ca: bytes = b"",
        minimum_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2,
        ciphers: str = "",
    ) -> None:
        self.errors = Counter()
        self._client_ca = client_ca
        self._minimum_version = minimum_version
        self._ciphers = ciphers
        self._current = self._load(certificate, key)

    def replace(self, certificate: bytes, key: bytes, *, client_ca: bytes | None = None) -> None:
        """Serve new connections with another pair; open ones keep theirs.

        Args:
            certificate: The chain, PEM.
            key: Its key, PEM.
            client_ca: CAs of clients; None keeps those in use.

        Raises:
            TransportError: It cannot be served; what is in use stays.
        """
        before = self._client_ca
        if client_ca is not None:
            self._client_ca = client_ca
        try:
            self._current = self._load(certificate, key)
        except TransportError:
            self._client_ca = before
            raise

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        """Called by the event loop for every new connection."""
        wrapped = self._current.wrap_bio(*args, **kwargs)
        if isinstance(wrapped, _Handshake):
            wrapped.errors = self.errors
        return wrapped

    def _load(self, certificate: bytes, key: bytes) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.sslobject_class = _Handshake
        context.set_alpn_protocols(ALPN)
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
        _set_versions(context, self._minimum_version, self._ciphers)
        try:
            with _as_file(certificate + b"\n" + key) as path:
                context.load_cert_chain(path, password=_refuse_password)
        except (ssl.SSLError, OSError, ValueError) as exc:
            raise TransportError(f"the certificate cannot be served: {exc}") from exc
        if self._client_ca:
            _require_clients_of(context, self._client_ca)
        return context


class _Handshake(ssl.SSLObject):
    """One connection, which tells of a handshake that fails, or never ends."""

    errors: Counter[str] | None = None
    _over = False

    def __del__(self) -> None:
        """Count a handshake that was given up: the event loop tells nobody of it."""
        if self.errors is not None and not self._over:
            self.errors["tls unfinished"] += 1

    def do_handshake(self) -> None:
        """Go on with the handshake."""
        try:
            super().do_handshake()
            self._over = True
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as exc:
            self._over = True
            if self.errors is not None:
                self.errors["tls handshake"] += 1
            log.debug("tls handshake failed", reason=exc.reason or str(exc))
            raise


def _set_versions(context: ssl.SSLContext, minimum: ssl.TLSVersion, ciphers: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # TLS 1.0 and 1.1, if asked for
        context.minimum_version = minimum
    if minimum < ssl.TLSVersion.TLSv1_2:
        ciphers = f"{ciphers or LEGACY_CIPHERS}:@SECLEVEL=0"
    if not ciphers:
        return
    try:
        context.set_ciphers(ciphers)
    except ssl.SSLError as exc:
        raise CipherSuitesError(f"no cipher suite of {ciphers!r} can be served") from exc


def _require_clients_of(context: ssl.SSLContext, client_ca: bytes) -> None:
    try:
        context.load_verify_locations(cadata=client_ca.decode("ascii"))
    except (ssl.SSLError, ValueError) as exc:
        raise TransportError("the client CA holds no PEM certificate") from exc
    context.verify_mode = ssl.CERT_REQUIRED


def _refuse_password() -> bytes:
    """Called for an encrypted key; without it OpenSSL would ask the terminal."""
    raise ValueError("the key has a password")


@contextlib.contextmanager
def _as_file(data: bytes) -> Iterator[str]:
    """A path with this content for as long as the block runs; in memory where that exists.

    The ``ssl`` module takes paths only, and a key has no place on a disk.
    """
    if hasattr(os, "memfd_create"):
        handle = os.memfd_create("pair")
        try:
            os.write(handle, data)
            yield f"/proc/self/fd/{handle}"
        finally:
            os.close(handle)
        return
    with tempfile.NamedTemporaryFile() as file:  # readable by us alone
        file.write(data)
        file.flush()
        yield file.name
