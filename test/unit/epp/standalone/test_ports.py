"""Ports: a taken default is replaced and said, a taken choice is an error."""

import socket

import pytest

from epp.errors import ConfigError
from epp.standalone.ports import claim_port

HOST = "127.0.0.1"


@pytest.fixture
def busy():
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_free_default_is_used_in_silence(busy):
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        free = probe.getsockname()[1]

    assert claim_port("--port", chosen=None, default=free, host=HOST) == (free, None)


def test_a_taken_default_is_replaced_and_said(busy):
    port, note = claim_port("--port", chosen=None, default=busy, host=HOST)

    assert port != busy
    assert note == f"port {busy} is in use: --port is {port} instead"


def test_a_taken_choice_is_an_error_naming_flag_and_port(busy):
    with pytest.raises(ConfigError, match=rf"--port: this port is already in use \(got {busy}\)"):
        claim_port("--port", chosen=busy, default=1, host=HOST)


def test_a_port_given_away_in_this_run_counts_as_taken():
    port, _ = claim_port("--a", chosen=0, default=1, host=HOST)

    other, note = claim_port("--b", chosen=None, default=port, host=HOST, taken=[port])

    assert other != port
    assert note is not None


def test_zero_asks_for_any_free_port():
    port, note = claim_port("--port", chosen=0, default=1, host=HOST)

    assert port > 0
    assert note is None


def test_an_address_that_is_not_ours_is_an_error():
    with pytest.raises(ConfigError, match="cannot listen there"):
        claim_port("--port", chosen=None, default=18080, host="192.0.2.1")
