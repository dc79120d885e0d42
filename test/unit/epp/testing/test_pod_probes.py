"""Probes, with checks that say what a test wants."""

import asyncio
import contextlib

import pytest

from epp.testing.pod_paths import PodSpecError
from epp.testing.pod_probes import Probe, probe_of
from epp.testing.stack import eventually, free_port

QUICK = 0.005


class Checks:
    """Answers one after the other, the last one for ever."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = 0

    async def __call__(self):
        self.asked += 1
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def probe(checks, *, failures=2, successes=1):
    return Probe(
        check=checks, period_seconds=QUICK, delay_seconds=0, failures=failures, successes=successes
    )


async def test_a_start_is_over_with_the_first_success():
    checks = Checks(False, False, True)

    assert await probe(checks, failures=1_000).first_success()
    assert checks.asked == 3


async def test_a_start_that_takes_too_long_has_failed():
    assert not await probe(Checks(False)).first_success()


async def test_readiness_changes_after_as_many_answers_as_it_is_said():
    checks = Checks(False, True, False, True, False, False, False, True, True, True)
    told: list[bool] = []
    following = asyncio.create_task(
        probe(checks, failures=3, successes=2).follow(told.append), name="follow"
    )

    await eventually(lambda: len(told) == 3, what="three verdicts")
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)

    assert told == [True, False, True]


async def test_liveness_is_over_with_failures_in_a_row():
    checks = Checks(False, True, False, False)

    await probe(checks).first_failure()

    assert checks.asked == 4


CONTAINER = {"name": "c", "ports": [{"name": "http", "containerPort": 1}]}


@pytest.mark.parametrize("kind", ["httpGet", "tcpSocket", "grpc"])
async def test_a_port_that_nobody_listens_on_fails(kind):
    said = {kind: {"port": free_port(), "path": "/"}, "timeoutSeconds": 1}
    made = probe_of({**CONTAINER, "readinessProbe": said}, "readinessProbe", address="127.0.0.1")

    assert made is not None
    assert not await made.check()


@pytest.mark.parametrize(
    ("said", "status", "want"),
    [
        pytest.param({"httpGet": {"port": "http", "path": "/x"}}, 200, True, id="http-200"),
        pytest.param({"httpGet": {"port": "http", "path": "/x"}}, 503, False, id="http-503"),
        pytest.param({"tcpSocket": {"port": "http"}}, 503, True, id="tcp-needs-no-answer"),
    ],
)
async def test_a_port_is_found_by_its_name(said, status, want):
    answered_all = asyncio.Event()

    async def answer(reader, writer):
        with contextlib.suppress(OSError, EOFError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(f"HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n".encode())
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        answered_all.set()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        container = {**CONTAINER, "ports": [{"name": "http", "containerPort": port}]}
        made = probe_of({**container, "startupProbe": said}, "startupProbe", address="127.0.0.1")
        assert made is not None

        answered = await made.check()
        await answered_all.wait()

    assert answered is want


def test_what_is_not_said_is_kubernetes_default():
    said = {"httpGet": {"port": "http"}}
    made = probe_of({**CONTAINER, "livenessProbe": said}, "livenessProbe", address="127.0.0.1")

    assert made is not None
    assert (made.period_seconds, made.delay_seconds, made.failures, made.successes) == (10, 0, 3, 1)


def test_no_probe_is_none():
    assert probe_of(CONTAINER, "livenessProbe", address="127.0.0.1") is None


@pytest.mark.parametrize(
    ("said", "named"),
    [
        pytest.param({"exec": {"command": ["x"]}}, "container c", id="kind"),
        pytest.param({"tcpSocket": {"port": "grpc"}}, '"grpc"', id="port"),
    ],
)
def test_a_probe_that_the_harness_has_not_is_refused(said, named):
    with pytest.raises(PodSpecError, match=named):
        probe_of({**CONTAINER, "livenessProbe": said}, "livenessProbe", address="127.0.0.1")
