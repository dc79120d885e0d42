"""The gRPC port: which transport serves it, and its TLS."""

import contextlib
import ssl
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from epp.errors import ConfigError, TransportError
from epp.server.descriptors import connections_for
from epp.server.options import Options
from epp.server.tls import (
    CertificatePair,
    ServingCertificate,
    load_client_ca,
    load_pair,
    serving_certificate,
)
from epp.transport.grpcio_server import GrpcioServer
from epp.transport.limits import DEFAULT_LIMITS, TransportLimits
from epp.transport.stats import TransportStats
from epp.transport.stream import Services, Transport
from epp.transport.tls_context import CipherSuitesError, TlsContext

_TLS_VERSIONS = {
    "VersionTLS10": ssl.TLSVersion.TLSv1,
    "VersionTLS11": ssl.TLSVersion.TLSv1_1,
    "VersionTLS12": ssl.TLSVersion.TLSv1_2,
    "VersionTLS13": ssl.TLSVersion.TLSv1_3,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpcPort:
    """The transport of the gRPC port.

    Attributes:
        transport: Serves it.
        stats: Its counters; None where it keeps none.
        reload: Uses what the files of its TLS hold now, and tells whether that is something else.
            Raises ConfigError, and changes nothing, when it cannot be served.
        watched: Directories of these files; none without TLS or files.
    """

    transport: Transport
    stats: TransportStats | None
    reload: Callable[[], bool] = lambda: False
    watched: Sequence[Path] = ()


def build_grpc_port(options: Options, services: Services, *, descriptors: int) -> GrpcPort:
    """Construct the transport that the options choose.

    Args:
        options: Flags.
        services: What it serves.
        descriptors: How many files this process may open.

    Raises:
        ConfigError: A certificate or a CA cannot be used.
    """
    certificate = None
    if options.secure_serving:
        certificate = serving_certificate(options.cert_path)
    if options.transport == "grpcio":
        return _grpcio(options, services, certificate)
    return _native(options, services, certificate, descriptors)


def _grpcio(
    options: Options, services: Services, certificate: ServingCertificate | None
) -> GrpcPort:
    transport = GrpcioServer(
        services,
        host=options.bind_address,
        port=options.grpc_port,
        max_receive_bytes=options.grpc_max_receive_bytes,
        max_send_bytes=options.grpc_max_send_bytes,
        credentials=None if certificate is None else certificate.credentials(),
    )
    directory = options.cert_path
    if certificate is None or directory is None:
        return GrpcPort(transport=transport, stats=None)
    return GrpcPort(
        transport=transport,
        stats=None,
        reload=lambda: certificate.reload(directory),
        watched=(directory,),
    )


def _native(
    options: Options,
    services: Services,
    certificate: ServingCertificate | None,
    descriptors: int,
) -> GrpcPort:
    # Here, because its engine has no wheels for every platform that grpcio has.
    from epp.transport.native_server import NativeServer

    tls = None if certificate is None else _NativeTls(options, certificate.pair)
    limits = TransportLimits(
        max_connections=connections_for(descriptors, DEFAULT_LIMITS.max_connections),
        max_message_bytes=options.grpc_max_receive_bytes,
        max_send_bytes=options.grpc_max_send_bytes,
        max_connection_bytes=options.grpc_max_connection_bytes,
    )
    transport = NativeServer(
        services,
        host=options.bind_address,
        port=options.grpc_port,
        limits=limits,
        tls=None if tls is None else tls.context,
    )
    if tls is None:
        return GrpcPort(transport=transport, stats=transport.stats)
    return GrpcPort(
        transport=transport, stats=transport.stats, reload=tls.reload, watched=tls.directories
    )


class _NativeTls:
    """The context of the native transport, and the files that it follows.

    Args:
        options: Name the files.
        pair: To begin with.
    """

    def __init__(self, options: Options, pair: CertificatePair) -> None:
        self._options = options
        self._used = (pair, self._client_ca())
        with _naming_flags(options):
            self.context = TlsContext(
                certificate=pair.certificate,
                key=pair.key,
                client_ca=self._used[1],
                minimum_version=_TLS_VERSIONS[options.tls_min_version],
                ciphers=options.tls_cipher_suites.openssl,
            )

    @property
    def directories(self) -> Sequence[Path]:
        """Where its files are, each once."""
        client_ca = self._options.grpc_client_ca_file
        wanted = (self._options.cert_path, None if client_ca is None else client_ca.parent)
        return tuple(dict.fromkeys(path for path in wanted if path is not None))

    def reload(self) -> bool:
        """Use what the files hold now; tell whether that is something else. Raises ConfigError."""
        directory = self._options.cert_path
        pair = self._used[0] if directory is None else load_pair(directory)
        client_ca = self._client_ca()
        if (pair, client_ca) == self._used:
            return False
        with _naming_flags(self._options):
            self.context.replace(pair.certificate, pair.key, client_ca=client_ca)
        self._used = (pair, client_ca)
        return True

    def _client_ca(self) -> bytes:
        file = self._options.grpc_client_ca_file
        return b"" if file is None else load_client_ca(file, flag="--grpc-client-ca-file")


@contextlib.contextmanager
def _naming_flags(options: Options) -> Iterator[None]:
    """OpenSSL refuses more than the checks before it, such as a key that is too short."""
    try:
        yield
    except CipherSuitesError as exc:
        names = ",".join(options.tls_cipher_suites.names)
        raise ConfigError(str(exc), source="--tls-cipher-suites", value=names) from exc
    except TransportError as exc:
        shown = None if options.cert_path is None else str(options.cert_path)
        raise ConfigError(str(exc), source="--cert-path", value=shown) from exc
