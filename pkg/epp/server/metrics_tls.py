"""TLS of the metrics port: the operator's pair, and the CA of clients if there is one.

``MetricsTls`` is an ``ssl.SSLContext`` like any other to the event loop, but every connection is
wrapped by the context that was loaded last. Contexts are replaced whole, so a connection never
sees a certificate without its key; those that are open keep theirs.
"""

import ssl
from pathlib import Path
from typing import Any, Self

from epp.errors import ConfigError
from epp.server.tls import CERTIFICATE_FILE, KEY_FILE, CertificatePair, load_client_ca, load_pair

CERTIFICATE_FLAG = "--metrics-cert-dir"
CLIENT_CA_FLAG = "--metrics-client-ca-file"


class MetricsTls(ssl.SSLContext):
    """The context of a listener, whose content can be loaded again.

    Args:
        directory: Holds ``tls.crt`` and ``tls.key``.
        client_ca_file: Clients must show a certificate of this CA; None takes every client.

    Raises:
        ConfigError: A file cannot be used; names flag and file.
    """

    _directory: Path
    _client_ca_file: Path | None
    _loaded: tuple[CertificatePair, bytes]
    _current: ssl.SSLContext

    def __new__(cls, *_: object) -> Self:
        """Make the empty context that the event loop sees."""
        return super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)

    def __init__(self, directory: Path, client_ca_file: Path | None) -> None:
        self._directory = directory
        self._client_ca_file = client_ca_file
        self._loaded, self._current = self._load()

    def reload(self) -> bool:
        """Use what the files hold now; tell whether that is something else.

        Raises:
            ConfigError: It cannot be used; what is in use stays.
        """
        before = self._loaded
        self._loaded, self._current = self._load()
        return self._loaded != before

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        """Called by the event loop for every new connection."""
        return self._current.wrap_bio(*args, **kwargs)

    def _load(self) -> tuple[tuple[CertificatePair, bytes], ssl.SSLContext]:
        pair = load_pair(self._directory, flag=CERTIFICATE_FLAG)
        client_ca = b""
        if self._client_ca_file is not None:
            client_ca = load_client_ca(self._client_ca_file, flag=CLIENT_CA_FLAG)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(self._directory / CERTIFICATE_FILE, self._directory / KEY_FILE)
        except (ssl.SSLError, OSError) as exc:  # replaced since, or weaker than OpenSSL allows
            text = f"cannot be served: {exc}"
            raise ConfigError(text, source=CERTIFICATE_FLAG, value=str(self._directory)) from exc
        if client_ca:
            context.load_verify_locations(cadata=client_ca.decode("ascii"))
            context.verify_mode = ssl.CERT_REQUIRED
        return (pair, client_ca), context
