"""Credentials that change: files that are rotated, plugins that run again."""

import asyncio
import base64
import os
import sys
import time
from pathlib import Path

import orjson
import pytest
from structlog.testing import capture_logs

from epp.kube.connection_settings import (
    Anonymous,
    AuthProvider,
    ExecPlugin,
    StaticAuthorization,
    TokenFile,
)
from epp.kube.credentials import (
    EXEC_REJECT_SECONDS,
    TOKEN_FILE_SECONDS,
    AuthProviderCredentials,
    ExecCredentials,
    TokenFileCredentials,
    credentials_for,
)
from epp.kube.exec_plugin import CredentialsError
from epp.testing.fake_clock import FakeClock

V1 = "client.authentication.k8s.io/v1"


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text("one\n")
    return file


async def test_fixed_credentials_never_change() -> None:
    nobody = credentials_for(Anonymous())
    somebody = credentials_for(StaticAuthorization(header="Bearer x"))

    assert await nobody.authorization() == ""
    assert await somebody.authorization() == "Bearer x"
    assert not somebody.reject("Bearer x")
    await somebody.close()
    assert await somebody.authorization() == "Bearer x"


async def test_a_token_file_is_read_again_after_a_while(token_file: Path) -> None:
    clock = FakeClock()
    credentials = TokenFileCredentials(token_file, clock=clock)

    assert await credentials.authorization() == "Bearer one"
    token_file.write_text("two")
    assert await credentials.authorization() == "Bearer one"
    clock.advance(TOKEN_FILE_SECONDS)
    assert await credentials.authorization() == "Bearer two"


async def test_a_rejected_token_is_worth_a_look_at_the_file(token_file: Path) -> None:
    credentials = TokenFileCredentials(token_file, clock=FakeClock())
    first = await credentials.authorization()

    assert not credentials.reject(first)
    token_file.write_text("two")
    assert credentials.reject(first)
    assert credentials.reject(first)
    assert await credentials.authorization() == "Bearer two"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        pytest.param(None, "No such file or directory", id="missing"),
        pytest.param("", "is empty", id="empty"),
        pytest.param("a\nb", "does not hold a token", id="two-lines"),
        pytest.param("é", "is not text", id="not-ascii"),
    ],
)
async def test_a_token_file_without_a_token(
    token_file: Path, content: str | None, problem: str
) -> None:
    token_file.unlink()
    if content is not None:
        token_file.write_text(content)

    with pytest.raises(CredentialsError, match=f"token file {token_file}: {problem}"):
        await TokenFileCredentials(token_file, clock=FakeClock()).authorization()


async def test_the_last_token_serves_while_the_file_is_away(token_file: Path) -> None:
    clock = FakeClock()
    credentials = TokenFileCredentials(token_file, clock=clock)
    await credentials.authorization()
    token_file.unlink()

    with capture_logs() as logs:
        for _ in range(3):
            clock.advance(TOKEN_FILE_SECONDS)
            assert await credentials.authorization() == "Bearer one"

    assert [one["event"] for one in logs] == ["token file cannot be read"]


def counting_plugin(folder: Path, expires: str = "") -> ExecPlugin:
    """Prints a token that counts its runs."""
    code = (
        "import json, os\n"
        f"path = {str(folder / 'runs')!r}\n"
        "open(path, 'a').write('x')\n"
        f"status = {{'token': str(os.path.getsize(path)), **({{'expirationTimestamp': {expires!r}}} if {expires!r} else {{}})}}\n"
        f"print(json.dumps({{'apiVersion': '{V1}', 'kind': 'ExecCredential', 'status': status}}))"
    )
    return ExecPlugin(command=sys.executable, args=("-S", "-c", code), env={}, api_version=V1)


async def test_a_plugin_runs_once_for_many_requests(tmp_path: Path) -> None:
    credentials = ExecCredentials(counting_plugin(tmp_path))

    headers = await asyncio.gather(*(credentials.authorization() for _ in range(5)))

    assert headers == ["Bearer 1"] * 5
    assert credentials.certificate is None


async def test_a_plugin_runs_again_shortly_before_its_token_expires(tmp_path: Path) -> None:
    clock = FakeClock(now=0.0)
    plugin = counting_plugin(tmp_path, "1970-01-01T00:01:00Z")
    credentials = ExecCredentials(plugin, wall_clock=clock)

    assert await credentials.authorization() == "Bearer 1"
    clock.advance(49)
    assert await credentials.authorization() == "Bearer 1"
    clock.advance(1)
    assert await credentials.authorization() == "Bearer 2"


async def test_a_plugin_runs_again_when_its_token_is_rejected(tmp_path: Path) -> None:
    clock = FakeClock()
    credentials = ExecCredentials(counting_plugin(tmp_path), clock=clock)
    first = await credentials.authorization()
    clock.advance(EXEC_REJECT_SECONDS)

    assert credentials.reject(first)
    assert await credentials.authorization() == "Bearer 2"
    assert credentials.reject(first)
    assert await credentials.authorization() == "Bearer 2"


async def test_a_token_that_is_rejected_at_once_is_not_worth_another_run(tmp_path: Path) -> None:
    clock = FakeClock()
    credentials = ExecCredentials(counting_plugin(tmp_path), clock=clock)
    first = await credentials.authorization()
    clock.advance(EXEC_REJECT_SECONDS - 0.1)

    assert not credentials.reject(first)
    assert await credentials.authorization() == first


def plugin_of(folder: Path, code: str) -> ExecPlugin:
    """A shell script that writes down its runs in a file."""
    script = f"echo run >> '{folder / 'runs'}'\n{code}"
    env = {"PATH": os.environ["PATH"]}
    return ExecPlugin(command="/bin/sh", args=("-c", script), env=env, api_version=V1)


def runs(folder: Path) -> int:
    return len((folder / "runs").read_text().splitlines())


async def failure(credentials: ExecCredentials) -> str:
    with pytest.raises(CredentialsError) as caught:
        await credentials.authorization()
    return str(caught.value)


async def test_a_plugin_that_fails_fails_once_for_everybody_who_asks(tmp_path: Path) -> None:
    credentials = ExecCredentials(plugin_of(tmp_path, "echo log in >&2; exit 3"), clock=FakeClock())

    told = await asyncio.gather(*(failure(credentials) for _ in range(7)))

    assert set(told) == {"exec plugin /bin/sh ended with status 3: log in"}
    assert runs(tmp_path) == 1


async def test_a_plugin_that_failed_is_left_alone_ever_longer(tmp_path: Path) -> None:
    clock = FakeClock()
    plugin = plugin_of(tmp_path, "echo no $(wc -l < '" + str(tmp_path / "runs") + "') >&2; exit 1")
    credentials = ExecCredentials(plugin, clock=clock, draw=lambda: 0.0)
    seen = []

    for _ in range(40):
        told = await failure(credentials)
        seen.append((clock.time() - 1000.0, told.rpartition(" ")[2]))
        clock.advance(0.5)

    first = {run: when for when, run in reversed(seen)}
    assert first == {"1": 0.0, "2": 1.0, "3": 3.0, "4": 7.0, "5": 15.0}


async def test_a_plugin_that_works_again_starts_the_back_off_over(tmp_path: Path) -> None:
    clock = FakeClock()
    works = tmp_path / "works"
    status = f'{{"apiVersion":"{V1}","kind":"ExecCredential","status":{{"token":"t"}}}}'
    code = f"[ -e '{works}' ] || exit 1; echo '{status}'"
    credentials = ExecCredentials(plugin_of(tmp_path, code), clock=clock, draw=lambda: 0.0)
    for _ in range(3):
        await failure(credentials)
        clock.advance(60)
    works.touch()

    assert await credentials.authorization() == "Bearer t"
    works.unlink()
    clock.advance(EXEC_REJECT_SECONDS)
    credentials.reject("Bearer t")
    await failure(credentials)
    clock.advance(1.0)
    await failure(credentials)

    assert runs(tmp_path) == 6


async def test_who_stops_waiting_does_not_end_the_run_of_the_others(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "go")
    status = f'{{"apiVersion":"{V1}","kind":"ExecCredential","status":{{"token":"t"}}}}'
    code = f"read line < '{tmp_path / 'go'}'; echo '{status}'"
    credentials = ExecCredentials(plugin_of(tmp_path, code))
    impatient = asyncio.create_task(credentials.authorization())
    patient = asyncio.create_task(credentials.authorization())
    await asyncio.sleep(0)

    impatient.cancel()
    await asyncio.gather(impatient, return_exceptions=True)
    await asyncio.to_thread((tmp_path / "go").write_text, "\n")

    assert await patient == "Bearer t"
    assert runs(tmp_path) == 1


async def test_closing_ends_a_run_and_whoever_waits_for_it(tmp_path: Path) -> None:
    credentials = ExecCredentials(plugin_of(tmp_path, "sleep 60"))
    asking = asyncio.create_task(failure(credentials))
    await asyncio.sleep(0)

    await credentials.close()
    await credentials.close()

    assert await asking == "exec plugin /bin/sh was ended"
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "exec plugin"]


def jwt(expires: float) -> str:
    payload = base64.b64encode(orjson.dumps({"exp": expires})).decode()
    return f"x.{payload}.y"


async def test_a_provider_gives_its_token() -> None:
    config = {"id-token": jwt(time.time() + 3600)}
    credentials = credentials_for(AuthProvider(name="oidc", config=config))

    header = await credentials.authorization()

    assert header == f"Bearer {config['id-token']}"
    assert not credentials.reject(header)


async def test_a_provider_that_gives_none_is_named_without_its_answer() -> None:
    credentials = AuthProviderCredentials(AuthProvider(name="oidc", config={"id-token": "s3cr3t"}))

    with pytest.raises(CredentialsError, match=r"auth-provider oidc gives no token \(ValueError\)"):
        await credentials.authorization()


def test_a_token_file_is_read_by_its_own_class(token_file: Path) -> None:
    assert isinstance(credentials_for(TokenFile(path=token_file)), TokenFileCredentials)
