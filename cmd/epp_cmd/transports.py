"""The gRPC port: which transport serves it, and its TLS."""

import contextlib
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from epp.errors import ConfigError, TransportError
from epp.server.options import Options
from epp.server.tls import (
    CertificatePair,
    ServingCertificate,
    load_client_ca,
    serving_certificate,
)
from epp.transport.grpcio_server import GrpcioServer
from epp.transport.limits import TransportLimits
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
        reload: Uses the certificate that a directory holds now, and tells whether it is another
            one; None without TLS.
    """

    transport: Transport
    stats: TransportStats | None
    reload: Callable[[Path], bool] | None


def build_grpc_port(options: Options, services: Services) -> GrpcPort:
    """Construct the transport that the options choose. Raises ConfigError: a certificate."""
    certificate = None
    if options.secure_serving:
        certificate = serving_certificate(options.cert_path)
    if options.transport == "grpcio":
        return _grpcio(options, services, certificate)
    return _native(options, services, certificate)


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
    reload = None if certificate is None else certificate.reload
    return GrpcPort(transport=transport, stats=None, reload=reload)


def _native(
    options: Options, services: Services, certificate: ServingCertificate | None
) -> GrpcPort:
    # Here, because its engine has no wheels for every platform that grpcio has.
    from epp.transport.native_server import NativeServer

    tls = None
    reload = None
    if certificate is not None:
        tls = _tls_context(options, certificate)
        reload = _reloading(options, certificate, tls)
    limits = TransportLimits(
        max_message_bytes=options.grpc_max_receive_bytes,
        max_send_bytes=options.grpc_max_send_bytes,
        max_connection_bytes=options.grpc_max_connection_bytes,
    )
    transport = NativeServer(
        services, host=options.bind_address, port=options.grpc_port, limits=limits, tls=tls
    )
    return GrpcPort(transport=transport, stats=transport.stats, reload=reload)


def _tls_context(options: Options, certificate: ServingCertificate) -> TlsContext:
    client_ca = b""
    if options.grpc_client_ca_file is not None:
        client_ca = load_client_ca(options.grpc_client_ca_file, flag="--grpc-client-ca-file")
    with _naming_flags(options):
        return TlsContext(
            certificate=certificate.pair.certificate,
            key=certificate.pair.key,
            client_ca=client_ca,
            minimum_version=_TLS_VERSIONS[options.tls_min_version],
            ciphers=options.tls_cipher_suites.openssl,
        )


def _reloading(
    options: Options, certificate: ServingCertificate, tls: TlsContext
) -> Callable[[Path], bool]:
    def use(pair: CertificatePair) -> None:
        with _naming_flags(options):
            tls.replace(pair.certificate, pair.key)

    return lambda directory: certificate.reload(directory, use)


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
