"""With and without TLS."""

import pytest

from epp.testing.talking import PAIR
from epp.transport.tls_context import TlsContext


@pytest.fixture(params=["plain", "tls"])
def tls(request: pytest.FixtureRequest) -> TlsContext | None:
    if request.param == "plain":
        return None
    return TlsContext(certificate=PAIR.certificate, key=PAIR.key)
