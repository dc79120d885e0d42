"""Credential plugins: what they are told, what they print, and how they fail."""

import sys

import msgspec
import pytest

from epp.kube.connection_settings import ExecPlugin
from epp.kube.exec_plugin import CredentialsError, run_exec_plugin

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


async def test_a_lot_of_output_on_both_pipes_is_no_problem() -> None:
    code = (
        "import sys; sys.stderr.write('e' * 300000); print('{\"apiVersion\":\"" + V1 + "\",'\n"
        '\'"kind":"ExecCredential","status":{"token":"\' + \'t\' * 300000 + \'"}}\')'
    )

    assert len((await run_exec_plugin(script(code), timeout_seconds=20)).token) == 300000
