"""Certificates in and out of TLS contexts."""

import ssl
import tempfile

import pytest

from epp.kube.client_certificate import ClientCertificate
from epp.testing.authority import Authority


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_nothing_is_left_on_disk(scratch) -> None:
    Authority().issue("client").load_into(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))

    assert list(scratch.iterdir()) == []


def test_nothing_is_left_on_disk_after_an_error(scratch) -> None:
    broken = ClientCertificate(certificate=b"x", key=b"y")

    with pytest.raises(ssl.SSLError):
        broken.load_into(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))

    assert list(scratch.iterdir()) == []


def test_the_key_is_never_shown() -> None:
    assert repr(Authority().issue("client")) == "ClientCertificate()"
