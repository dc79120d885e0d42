"""Ports: a taken default is replaced and said, a taken choice is an error."""

import asyncio
import socket

import pytest

from epp.errors import ConfigError
from epp.standalone.ports import claim_port, start_in_turn

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

    assert claim_port("--port", chosen=None, default=free, hosts=[HOST]) == (free, None)


def test_a_taken_default_is_replaced_and_said(busy):
    port, note = claim_port("--port", chosen=None, default=busy, hosts=[HOST])

    assert port != busy
    assert note == f"port {busy} is in use: --port is {port} instead"


def test_a_taken_choice_is_an_error_naming_flag_and_port(busy):
    with pytest.raises(ConfigError, match=rf"--port: this port is already in use \(got {busy}\)"):
        claim_port("--port", chosen=busy, default=1, hosts=[HOST])


def test_a_port_given_away_in_this_run_counts_as_taken():
    port, _ = claim_port("--a", chosen=0, default=1, hosts=[HOST])

    other, note = claim_port("--b", chosen=None, default=port, hosts=[HOST], taken=[port])

    assert other != port
    assert note is not None


def test_zero_asks_for_any_free_port():
    port, note = claim_port("--port", chosen=0, default=1, hosts=[HOST])

    assert port > 0
    assert note is None


@pytest.mark.parametrize(
    "hosts",
    [
        pytest.param([""], id="every-address"),
        pytest.param(["0.0.0.0"], id="every-ipv4-address"),
        pytest.param(["::"], id="every-ipv6-address"),
        pytest.param(["127.0.9.1", HOST], id="second-of-several"),
    ],
)
def test_a_port_that_is_taken_on_one_of_the_addresses_is_taken(busy, hosts):
    port, note = claim_port("--port", chosen=None, default=busy, hosts=hosts)

    assert port != busy
    assert note is not None


def test_a_port_that_is_taken_on_another_address_is_free(busy):
    assert claim_port("--port", chosen=busy, default=1, hosts=["127.0.9.1", "::1"]) == (busy, None)


def test_an_address_that_is_not_ours_is_an_error():
    with pytest.raises(ConfigError, match="cannot listen there"):
        claim_port("--port", chosen=None, default=18080, hosts=["192.0.2.1"])


async def test_runs_that_start_at_once_take_turns(tmp_path):
    lock_file, order, waits = tmp_path / "turn", [], asyncio.Event()
    first_may_end = asyncio.Event()

    async def first() -> None:
        async with start_in_turn(lambda: order.append("first waits"), lock_file=lock_file):
            order.append("first starts")
            await first_may_end.wait()
            order.append("first is up")

    async def second() -> None:
        async with start_in_turn(waits.set, lock_file=lock_file):
            order.append("second starts")

    running = asyncio.create_task(first())
    await asyncio.sleep(0)
    waiting = asyncio.create_task(second())
    await waits.wait()
    first_may_end.set()
    await asyncio.gather(running, waiting)

    assert order == ["first starts", "first is up", "second starts"]


async def test_a_run_that_hangs_in_its_start_does_not_stop_the_next(tmp_path):
    lock_file, waited = tmp_path / "turn", []

    async with start_in_turn(lambda: None, lock_file=lock_file):
        async with start_in_turn(
            lambda: waited.append(True), lock_file=lock_file, patience_seconds=0.01
        ):
            pass

    assert waited == [True]


async def test_without_a_place_for_the_lock_a_run_starts_at_once(tmp_path):
    async with start_in_turn(lambda: None, lock_file=tmp_path / "no" / "such" / "folder"):
        started = True

    assert started
