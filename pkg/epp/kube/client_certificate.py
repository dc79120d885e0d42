"""ClientCertificate: a certificate and its key, which only ever touch the disk for a moment.

OpenSSL reads a key from files only. They are written to a directory of our own, readable by nobody
else, and are gone before the function returns.
"""

import ssl
import tempfile
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientCertificate:
    """How a client proves who it is in the TLS handshake.

    Attributes:
        certificate: PEM, leaf first.
        key: PEM, unencrypted. Never shown.
    """

    certificate: bytes = field(repr=False)
    key: bytes = field(repr=False)

    def load_into(self, context: ssl.SSLContext) -> None:
        """Present this certificate in every later handshake of a context.

        Raises:
            ssl.SSLError: They are not PEM, or do not belong together.
        """
        with tempfile.TemporaryDirectory(prefix="epp-client-certificate-") as folder:
            certificate, key = Path(folder, "tls.crt"), Path(folder, "tls.key")
            for path, content in ((certificate, self.certificate), (key, self.key)):
                path.touch(mode=0o600)
                path.write_bytes(content)
            context.load_cert_chain(certificate, key, password=_no_password)


def _no_password() -> str:
    """Without this OpenSSL asks the terminal for the password of an encrypted key."""
    return ""
