"""What the program says and returns for input that it cannot use."""

import os
import socket
from collections.abc import Iterator

import pytest
import structlog

from epp_cmd.main import main

SERVE = ["serve", "--endpoint=127.0.0.1:9", "--bind-address=127.0.0.1"]
FREE = ["--grpc-port=0", "--grpc-health-port=0", "--metrics-port=0"]


@pytest.fixture(autouse=True)
def process_as_before() -> Iterator[None]:
    """The program sets up logging and the environment for the process, which tests share."""
    logging, env = structlog.get_config(), dict(os.environ)
    yield
    structlog.configure(**logging)
    os.environ.clear()
    os.environ.update(env)


@pytest.mark.parametrize(
    "argv, says",
    [
        pytest.param(
            ["serve", "--drain-timeout", "-1s"],
            "--drain-timeout: must not be negative (got '-1s')",
            id="negative-duration",
        ),
        pytest.param(
            ["standalone", "--demo", "--drain-timeout", "-1s"],
            "--drain-timeout: must not be negative (got '-1s')",
            id="negative-duration-for-serve",
        ),
        pytest.param(
            ["standalone", "--demo", "--drain-seconds", "-.5"],
            "--drain-seconds: must be a number of seconds, 0 or more (got -0.5)",
            id="negative-fraction",
        ),
        pytest.param(
            ["serve", "--kube-context", "--pool-name", "x"],
            "argument --kube-context: expected one argument; a value that begins with a dash is "
            "written FLAG=VALUE",
            id="value-forgotten",
        ),
    ],
)
def test_a_value_is_refused_in_one_line(
    capsys: pytest.CaptureFixture[str], argv: list[str], says: str
) -> None:
    assert main(argv) == 2

    assert capsys.readouterr().err.rstrip("\n").endswith(says)


@pytest.mark.parametrize("flag", ["--grpc-port", "--grpc-health-port", "--metrics-port"])
@pytest.mark.parametrize("transport", ["native", "grpcio"])
def test_a_port_in_use_is_told_with_its_flag(
    capfd: pytest.CaptureFixture[str], flag: str, transport: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        status = main([*SERVE, f"--transport={transport}", *FREE, f"{flag}={port}"])

    last = capfd.readouterr().err.splitlines()[-1]
    assert (status, last) == (
        1,
        f"epp: {flag}: cannot listen on 127.0.0.1:{port}: Address already in use",
    )


def test_an_address_that_is_not_ours_is_told_with_its_flag(
    capfd: pytest.CaptureFixture[str],
) -> None:
    status = main([*SERVE, *FREE, "--bind-address=192.0.2.1"])

    last = capfd.readouterr().err.splitlines()[-1]
    assert (status, last) == (
        1,
        "epp: --bind-address: cannot listen on 192.0.2.1:0: Cannot assign requested address",
    )
