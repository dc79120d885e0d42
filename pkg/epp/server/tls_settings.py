"""TLS versions and cipher suites as operators of Go programs write them.

Names only: nothing here needs a TLS library, and this module must stay free of ``grpc``, because
gRPC reads its cipher suites from the environment when it is imported, and never again.
Reference: Go crypto/tls; llm-d-router ebab687 pkg/epp/server/options.go.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

TLS_VERSIONS = ("VersionTLS10", "VersionTLS11", "VersionTLS12", "VersionTLS13")
DEFAULT_TLS_VERSION = "VersionTLS12"

GRPC_CIPHER_VARIABLE = "GRPC_SSL_CIPHER_SUITES"

CIPHER_SUITES: Mapping[str, str] = {
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256": "ECDHE-ECDSA-AES128-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA": "ECDHE-ECDSA-RC4-SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256": "ECDHE-RSA-AES128-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA": "ECDHE-RSA-DES-CBC3-SHA",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA": "ECDHE-RSA-RC4-SHA",
    "TLS_RSA_WITH_AES_128_GCM_SHA256": "AES128-GCM-SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384": "AES256-GCM-SHA384",
    "TLS_RSA_WITH_AES_128_CBC_SHA": "AES128-SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256": "AES128-SHA256",
    "TLS_RSA_WITH_AES_256_CBC_SHA": "AES256-SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA": "DES-CBC3-SHA",
    "TLS_RSA_WITH_RC4_128_SHA": "RC4-SHA",
}
"""Go's names of the suites up to TLS 1.2, with OpenSSL's."""

TLS13_SUITES = frozenset(
    {"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"}
)
"""Known, but nobody can choose among them: neither Go nor gRPC."""

UNKNOWN_TO_GRPCIO = frozenset(
    {
        "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
        "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
        "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
        "TLS_RSA_WITH_AES_128_CBC_SHA256",
        "TLS_RSA_WITH_RC4_128_SHA",
    }
)
"""Suites with which grpcio 1.85 (BoringSSL) cannot bind; tried one by one."""


@dataclass(frozen=True, slots=True)
class CipherSuites:
    """What ``--tls-cipher-suites`` said.

    Attributes:
        names: Go names up to TLS 1.2, in the order given; empty leaves the choice to the library.
        tls13: Names of TLS 1.3 suites, which are always offered.
    """

    names: tuple[str, ...] = ()
    tls13: tuple[str, ...] = ()

    @property
    def openssl(self) -> str:
        """The same in OpenSSL's syntax."""
        return ":".join(CIPHER_SUITES[name] for name in self.names)


def parse_cipher_suites(text: str) -> CipherSuites:
    """Read a comma-separated list of Go names. Raises ValueError with half a sentence."""
    words = dict.fromkeys(word.strip() for word in text.split(",") if word.strip())
    unknown = [word for word in words if word not in CIPHER_SUITES and word not in TLS13_SUITES]
    if unknown:
        raise ValueError(f"has no cipher suite of Go's crypto/tls named {unknown[0]}")
    names = tuple(word for word in words if word in CIPHER_SUITES)
    if words and not names:
        raise ValueError("names TLS 1.3 suites only, which cannot be chosen")
    return CipherSuites(names, tuple(word for word in words if word in TLS13_SUITES))


def join_cipher_suites(parts: Iterable[CipherSuites]) -> CipherSuites:
    """One list out of those of a repeated flag."""
    listed = list(parts)
    return CipherSuites(
        tuple(dict.fromkeys(name for part in listed for name in part.names)),
        tuple(dict.fromkeys(name for part in listed for name in part.tls13)),
    )


def grpcio_refuses(version: str, suites: Sequence[str]) -> tuple[str, str] | None:
    """Tell why grpcio cannot serve these settings: what it cannot do, and a reason.

    gRPC's Python binding has no TLS version bounds: it speaks TLS 1.2 and 1.3, always.
    """
    if version != DEFAULT_TLS_VERSION:
        return version, "the transport grpcio speaks TLS 1.2 and 1.3, no other bound can be set"
    for suite in suites:
        if suite in UNKNOWN_TO_GRPCIO:
            return suite, "the transport grpcio does not have this cipher suite"
    return None


def grpc_environment(suites: CipherSuites) -> dict[str, str]:
    """Environment variables to set **before** ``grpc`` is imported for the first time."""
    return {GRPC_CIPHER_VARIABLE: suites.openssl} if suites.names else {}
