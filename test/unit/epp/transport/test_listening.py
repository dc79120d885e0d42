"""Ports that can be listened on, and why others cannot."""

import errno
import socket

import pytest

from epp.transport.listening import ListenError, listen, listen_error


def test_a_listener_takes_connections_and_does_not_block() -> None:
    with listen("127.0.0.1", 0) as listener:
        with socket.create_connection(listener.getsockname(), timeout=5):
            pass

        assert listener.gettimeout() == 0.0


def test_without_a_host_both_families_are_listened_on() -> None:
    with listen("", 0) as listener:
        port = listener.getsockname()[1]

        with socket.create_connection(("127.0.0.1", port), timeout=5):
            pass


def test_a_port_in_use_is_not_the_addresss_fault() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]

        with pytest.raises(ListenError) as caught:
            listen("127.0.0.1", port)

    assert str(caught.value) == f"cannot listen on 127.0.0.1:{port}: Address already in use"
    assert (caught.value.port, caught.value.address_at_fault) == (port, False)


def test_a_port_that_somebody_bound_but_does_not_serve_yet_is_in_use() -> None:
    with socket.socket() as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(("127.0.0.1", 0))
        with listen("127.0.0.1", bound.getsockname()[1]):
            with pytest.raises(ListenError, match="in use"):
                listen("127.0.0.1", bound.getsockname()[1])


def test_an_address_of_another_machine_is_at_fault() -> None:
    with pytest.raises(ListenError) as caught:
        listen("192.0.2.1", 0)

    assert str(caught.value) == "cannot listen on 192.0.2.1:0: Cannot assign requested address"
    assert caught.value.address_at_fault


@pytest.mark.parametrize(
    ("host", "exc", "text", "address_at_fault"),
    [
        pytest.param(
            "::1", PermissionError(errno.EACCES, "x"), "[::1]:80: Permission denied", False, id="v6"
        ),
        pytest.param(
            "", OSError(errno.EADDRINUSE, "x"), "[::]:80: Address already in use", False, id="any"
        ),
        pytest.param(
            "no.host", socket.gaierror(-2, "Name or service not known"),
            "no.host:80: Name or service not known", True, id="name",
        ),
        pytest.param("a", OSError("odd"), "a:80: odd", False, id="without-a-number"),
    ],
)  # fmt: skip
def test_the_error_has_the_systems_reason(
    host: str, exc: OSError, text: str, address_at_fault: bool
) -> None:
    error = listen_error(host, 80, exc)

    assert str(error) == f"cannot listen on {text}"
    assert error.address_at_fault is address_at_fault
