"""``epp standalone`` as a program: signals, ports, errors, draining."""

import asyncio
import fcntl
import json
import os
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path

import pytest

from epp.standalone import local_http
from epp.testing.stack import Manifests, Sims, Stack, eventually, free_port

pytestmark = [pytest.mark.envoy]

DEFAULT_PORTS = pytest.mark.usefixtures("default_ports")


@pytest.fixture
def default_ports():
    """One test at a time, across workers, that looks for free ports from the defaults on."""
    with (Path(tempfile.gettempdir()) / "epp-test-default-ports.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


async def run(*arguments, seconds=60):
    """Run ``epp`` to its end; status, standard output, standard error."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "epp", *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), seconds)
    return process.returncode, out.decode(), err.decode()


@DEFAULT_PORTS
@pytest.mark.parametrize("path", ["lean", "gateway"])
async def test_the_demo_prints_a_table_and_ends(path):
    status, out, err = await run("standalone", "--demo", "--once", "--path", path)

    assert status == 0, out + err
    assert "why this pod" in out
    assert out.count(" 200 ") >= 13
    assert "The model `gpt-nobody` does not exist." in out


@DEFAULT_PORTS
async def test_a_demo_whose_samples_fail_says_which_and_ends_with_status_1():
    status, out, err = await run("standalone", "--demo", "--once", "--max-request-body=10")

    assert status == 1, out + err
    assert out.count(" 413 ") >= 14
    assert "split 10/10: expected 200 by a pick, got 413" in out
    assert "undeclared: expected 404, got 413" in out


@DEFAULT_PORTS
async def test_ctrl_c_while_samples_run_ends_the_demo_without_a_table():
    admin = free_port()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "epp", "standalone", "--demo", "--once"),
        *("--admin-port", str(admin)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    await eventually(lambda: _requests(admin), seconds=30, what="a sample")
    began = time.monotonic()

    process.send_signal(signal.SIGINT)
    out, err = await asyncio.wait_for(process.communicate(), 30)

    assert process.returncode == 130, out + err
    assert b"why this pod" not in out
    assert b"Traceback" not in err
    assert time.monotonic() - began < 8


@DEFAULT_PORTS
async def test_a_named_port_that_is_taken_is_an_error():
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = str(busy.getsockname()[1])

        status, _, err = await run("standalone", "--demo", "--once", "--port", port)

    assert status == 2
    assert err.strip() == f"epp: --port: this port is already in use (got {port})"


@DEFAULT_PORTS
async def test_a_taken_default_port_is_replaced_and_said():
    with socket.socket() as busy:
        busy.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        busy.bind(("127.0.0.1", 8080))
        busy.listen()

        status, out, _ = await run("standalone", "--demo", "--once")

    assert status == 0
    assert "port 8080 is in use: --port is" in out


@DEFAULT_PORTS
async def test_a_port_that_one_pod_of_the_demo_cannot_have_is_replaced_for_all():
    with socket.socket() as busy:
        busy.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        busy.bind(("127.0.1.3", 8000))
        busy.listen()

        status, out, _ = await run("standalone", "--demo", "--once")

    assert status == 0
    assert "port 8000 is in use: pod port is" in out


@DEFAULT_PORTS
async def test_several_pools_and_no_name_is_an_error_that_lists_them(tmp_path):
    for name in ("red", "blue"):
        manifests = Manifests(tmp_path, namespace=name)
        manifests.pool(8000)
        (tmp_path / "pool.yaml").rename(tmp_path / f"{name}.yaml")

    status, out, err = await run("standalone", "--manifests", str(tmp_path), "--no-envoy")

    assert status == 2
    assert err.count("choose one with --pool-name: blue/p, red/p") == 1
    assert "restarting" not in out + err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        pytest.param(["standalone", "--dmeo"], "--demo", id="mistyped"),
        pytest.param(
            ["standalone", "--demo", "--pool-nam", "x"], "--pool-name", id="mistyped-serve-flag"
        ),
        pytest.param(["standalone", "--manifests", "/nowhere"], "/nowhere", id="no-directory"),
        pytest.param(["standalone", "--manifests", "/dev/null"], "is no directory", id="a-file"),
        pytest.param(["standalone", "--endpoint", "localhost:1"], "localhost", id="hostname"),
        pytest.param(["standalone", "--demo", "--host", "localhost"], "--host", id="host-name"),
        pytest.param(["standalone", "--demo", "--eds-file", "x"], "--eds-file", id="eds-file"),
        pytest.param(
            ["standalone", "--demo", "--once", "--no-envoy"], "--no-envoy", id="once-without-envoy"
        ),
        pytest.param(["serve"], "--manifests", id="no-source"),
        pytest.param(["nonsense"], "nonsense", id="no-command"),
    ],
)
async def test_a_users_mistake_is_one_line_and_no_traceback(arguments, text):
    status, _, err = await run(*arguments)

    assert status == 2
    assert text in err
    assert err.startswith("epp: ")
    assert err.count("\n") == 1


async def test_a_directory_without_a_pool_is_one_line(tmp_path):
    status, out, err = await run("standalone", "--manifests", str(tmp_path), "--no-envoy")

    complaint = "epp: there is no InferencePool here; name the one to wait for with --pool-name"
    assert status == 2
    assert [line for line in err.splitlines() if "InferencePool" in line] == [complaint]
    assert "restarting" not in out + err


async def test_ctrl_c_lets_running_requests_finish_and_stops_everything(tmp_path):
    manifests = Manifests(tmp_path / "manifests")
    async with Sims(1, first="127.0.48.1", arguments=["--model", "tiny", "--speed", "1"]) as sims:
        manifests.pool(sims.port)
        manifests.pods(sims.addresses)
        stack = Stack(tmp_path / "state", "--manifests", str(manifests.directory))
        async with stack:
            request = asyncio.create_task(_stream(stack.port, tokens=60))
            await eventually(lambda: _in_flight(stack), what="a running request")
            epp, envoy = stack.pid_of("serve"), stack.pid_of("envoy")
            assert epp is not None
            assert os.getsid(epp) != os.getsid(stack.process_id)

            os.kill(stack.process_id, signal.SIGINT)
            answer = await request

            assert answer.count(b"data: ") >= 60
            assert b"[DONE]" in answer
            await eventually(lambda: not _alive(epp) and not _alive(envoy), what="children gone")
            assert "stopped" in stack.log_text()


async def test_killing_the_supervisor_leaves_no_children_behind(tmp_path):
    async with Sims(1, first="127.0.49.1", arguments=["--model", "tiny"]) as sims:
        endpoint = f"{sims.addresses[0]}:{sims.port}"
        async with Stack(tmp_path / "state", "--endpoint", endpoint) as stack:
            epp, envoy = stack.pid_of("serve"), stack.pid_of("envoy")

            os.kill(stack.process_id, signal.SIGKILL)

            await eventually(lambda: not _alive(epp) and not _alive(envoy), what="children gone")


async def test_without_envoy_the_epp_alone_runs(tmp_path):
    async with Sims(1, first="127.0.50.1", arguments=["--model", "tiny"]) as sims:
        endpoint = f"{sims.addresses[0]}:{sims.port}"
        async with Stack(tmp_path / "state", "--endpoint", endpoint, "--no-envoy") as stack:
            assert stack.pid_of("envoy") is None
            await eventually(lambda: "no Envoy: ext_proc on" in stack.log_text(), what="the line")


async def test_the_printed_configuration_is_valid(tmp_path):
    from epp.standalone.plan import find_envoy

    for path in ("lean", "gateway"):
        eds = tmp_path / "endpoints.yaml"
        eds.write_text("resources: []\n")
        port = str(free_port())
        status, out, _ = await run(
            "envoy-config", "--path", path, "--eds-file", str(eds), "--port", port
        )
        config = tmp_path / f"{path}.yaml"
        config.write_text(out)

        check = await asyncio.create_subprocess_exec(
            find_envoy(None),
            "--mode",
            "validate",
            "-c",
            str(config),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        text, _ = await check.communicate()

        assert status == 0
        assert check.returncode == 0, text.decode()


async def _stream(port, tokens):
    body = json.dumps(
        {"model": "tiny", "prompt": "x", "max_tokens": tokens, "stream": True}
    ).encode()
    head = (
        b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head + body)
    answer = await asyncio.wait_for(reader.read(), 60)
    writer.close()
    return answer


async def _requests(admin):
    path = "/stats?filter=^http.gateway.downstream_rq_total$"
    stats = await local_http.request("127.0.0.1", admin, "GET", path)
    return int(stats.body.split()[-1])


async def _in_flight(stack):
    return sum(endpoint["in_flight"] for endpoint in (await stack.pool())["endpoints"]) > 0


def _alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
