"""Credential plugins: what they are told, what they print, and how they fail."""

import asyncio
import contextlib
import os
import sys
from pathlib import Path
from typing import Self

import msgspec
import pytest

from epp.kube.connection_settings import ExecPlugin
from epp.kube.exec_plugin import CredentialsError, run_exec_plugin
from epp.testing.stack import eventually

V1 = "client.authentication.k8s.io/v1"
SECRET = "eyJhbGciOiJSUzI1NiIsImtpZCI6IjEyMzQ1Njc4OTAifQ"


def script(code: str, **settings) -> ExecPlugin:
    return ExecPlugin(
        command=sys.executable, args=("-S", "-c", code), env={}, api_version=V1, **settings
    )


def prints(status: str, *, api_version: str = V1, kind: str = "ExecCredential") -> ExecPlugin:
    text = f'{{"apiVersion":"{api_version}","kind":"{kind}","status":{status}}}'
    return script(f"print({text!r})")


async def test_a_token_with_an_expiry() -> None:
    status = '{"token":"abc","expirationTimestamp":"1970-01-01T00:01:00Z"}'

    credential = await run_exec_plugin(prints(status), timeout_seconds=20)

    assert (credential.token, credential.expires_at, credential.certificate) == ("abc", 60.0, None)
    assert "abc" not in repr(credential)


async def test_a_certificate() -> None:
    status = '{"clientCertificateData":"CERT","clientKeyData":"KEY"}'

    credential = await run_exec_plugin(prints(status), timeout_seconds=20)

    assert credential.token == ""
    assert credential.certificate is not None
    assert credential.certificate.key == b"KEY"


async def test_a_plugin_is_told_that_there_is_no_terminal_and_which_cluster() -> None:
    code = (
        "import os, json, sys; info = json.loads(os.environ['KUBERNETES_EXEC_INFO'])\n"
        "assert sys.stdin.read() == ''\n"
        "print(json.dumps({**info, 'status': {'token': json.dumps(info['spec'])}}))"
    )

    told = await run_exec_plugin(script(code, cluster={"server": "https://x"}), timeout_seconds=20)

    assert msgspec.json.decode(told.token) == {
        "interactive": False,
        "cluster": {"server": "https://x"},
    }


@pytest.mark.parametrize(
    ("plugin", "message"),
    [
        pytest.param(
            script("import sys; sys.exit('login\\n first')"),
            "ended with status 1: login first",
            id="fails",
        ),
        pytest.param(
            script("import sys; sys.exit(3)"), "ended with status 3$", id="fails-silently"
        ),
        pytest.param(
            script(f"import sys; sys.exit('bad {SECRET}')"),
            "status 1: bad …$",
            id="secret-in-complaint",
        ),
        pytest.param(
            script(f"print('{SECRET}')"), "printed something that is not JSON$", id="not-json"
        ),
        pytest.param(
            script("print('[1]')"),
            "printed no ExecCredential: Expected `object`",
            id="not-an-object",
        ),
        pytest.param(
            prints("{}", kind="Pod"), f"printed {V1} Pod, not {V1} ExecCredential", id="other-kind"
        ),
        pytest.param(
            prints("{}", api_version="v0"),
            f"printed v0 ExecCredential, not {V1}",
            id="other-version",
        ),
        pytest.param(prints('{"token":"a\\nb"}'), "status.token is not a token", id="two-lines"),
        pytest.param(
            prints("{}"), "status has neither token nor clientCertificateData", id="nothing"
        ),
        pytest.param(
            prints("null"), "status has neither token nor clientCertificateData", id="null"
        ),
        pytest.param(prints('{"clientKeyData":"k"}'), "go together", id="key-alone"),
        pytest.param(
            ExecPlugin(command="/does/not/exist", api_version=V1, install_hint="get it\n"),
            "exec plugin /does/not/exist cannot be started: No such file or directory; get it$",
            id="not-installed",
        ),
        pytest.param(
            ExecPlugin(command=sys.executable, args=("\0",), api_version=V1),
            "its arguments are not usable",
            id="unusable-arguments",
        ),
    ],
)
async def test_failures_say_why_without_secrets(plugin: ExecPlugin, message: str) -> None:
    with pytest.raises(CredentialsError, match=message) as caught:
        await run_exec_plugin(plugin, timeout_seconds=20)

    assert SECRET not in str(caught.value)


async def test_a_plugin_that_hangs_is_killed() -> None:
    hangs = script("import time; time.sleep(1000)")

    with pytest.raises(CredentialsError, match=r"did not end within 0.2 s"):
        await run_exec_plugin(hangs, timeout_seconds=0.2)


class Child:
    """A process that a plugin starts; it holds a pipe, whose end tells that it is gone."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "pipe"
        self._reader = asyncio.StreamReader()

    def plugin(self, then: str) -> ExecPlugin:
        code = f"(exec 3>'{self._path}'; echo up >&3; sleep 60) & {then}"
        env = {"PATH": os.environ["PATH"]}
        return ExecPlugin(command="/bin/sh", args=("-c", code), env=env, api_version=V1)

    async def __aenter__(self) -> Self:
        os.mkfifo(self._path)
        end = os.fdopen(os.open(self._path, os.O_RDONLY | os.O_NONBLOCK), "rb")
        self._keeps_open = os.open(self._path, os.O_WRONLY)
        loop = asyncio.get_running_loop()
        protocol = asyncio.StreamReaderProtocol(self._reader)
        self._transport, _ = await loop.connect_read_pipe(lambda: protocol, end)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._transport.close()

    async def is_up(self) -> None:
        async with asyncio.timeout(20):
            assert await self._reader.readline() == b"up\n"
        os.close(self._keeps_open)

    async def is_gone(self) -> None:
        async with asyncio.timeout(20):
            assert await self._reader.read() == b""


@pytest.mark.parametrize(
    "then",
    [
        pytest.param("wait", id="while-the-plugin-runs"),
        pytest.param("exit 0", id="though-the-plugin-has-ended"),
    ],
)
async def test_a_cancelled_run_leaves_no_process(tmp_path: Path, then: str) -> None:
    async with Child(tmp_path) as child:
        run = asyncio.create_task(run_exec_plugin(child.plugin(then), timeout_seconds=60))
        await child.is_up()

        run.cancel()

        with pytest.raises(asyncio.CancelledError):
            await run
        await child.is_gone()


def processes_with(variable: bytes) -> list[str]:
    """Living processes with a variable in their environment; a dead one has none."""
    found = []
    for file in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if variable in file.read_bytes().split(b"\0"):
                found.append(file.parent.name)
    return found


@pytest.mark.parametrize("turns", range(8))
async def test_a_run_that_is_cancelled_while_it_starts_leaves_no_process(turns: int) -> None:
    mark = f"{os.getpid()}-{turns}"
    env = {"PATH": os.environ["PATH"], "MARK": mark}
    plugin = ExecPlugin(command="/bin/sh", args=("-c", "sleep 60 & wait"), env=env, api_version=V1)
    run = asyncio.create_task(run_exec_plugin(plugin, timeout_seconds=60))
    for _ in range(turns):
        await asyncio.sleep(0)

    run.cancel()
    async with asyncio.timeout(20):
        await asyncio.gather(run, return_exceptions=True)

    assert run.cancelled()
    await eventually(lambda: not processes_with(f"MARK={mark}".encode()), what="all to be gone")


async def test_a_run_that_takes_too_long_leaves_no_process(tmp_path: Path) -> None:
    async with Child(tmp_path) as child:
        with pytest.raises(CredentialsError, match="did not end within 1 s"):
            await run_exec_plugin(child.plugin("wait"), timeout_seconds=1)

        await child.is_up()
        await child.is_gone()


async def test_a_plugin_cannot_ask_the_terminal() -> None:
    code = "import os; print('{}' if os.getsid(0) == os.getpid() else 'shared')"

    with pytest.raises(CredentialsError, match="no ExecCredential"):
        await run_exec_plugin(script(code), timeout_seconds=20)


async def test_a_lot_of_output_on_both_pipes_is_no_problem() -> None:
    code = (
        "import sys; sys.stderr.write('e' * 300000); print('{\"apiVersion\":\"" + V1 + "\",'\n"
        '\'"kind":"ExecCredential","status":{"token":"\' + \'t\' * 300000 + \'"}}\')'
    )

    assert len((await run_exec_plugin(script(code), timeout_seconds=20)).token) == 300000
