"""Containers as processes: real ones, of a shell."""

import asyncio
import contextlib
import socket

import pytest

from epp.testing.pod_container import Container, ContainerSpec
from epp.testing.pod_probes import Probe
from epp.testing.stack import eventually, free_port

RUNS_UNTIL_TERM = "trap 'echo term; exit 0' TERM; echo up; while :; do sleep 0.01; done"
IGNORES_TERM = "trap 'echo term' TERM; echo up; while :; do sleep 0.01; done"


@pytest.fixture
def spec(tmp_path):
    def made(script, **fields):
        return ContainerSpec(
            name="c",
            image="i",
            argv=["/bin/sh", "-c", script],
            env={"PATH": "/usr/bin:/bin"},
            directory=tmp_path,
            log=tmp_path / "c.log",
            address="127.0.0.1",
            **fields,
        )

    return made


@contextlib.asynccontextmanager
async def running(spec):
    container = Container(spec, changed=lambda: None, backoff_seconds=0.01)
    task = asyncio.create_task(container.run(), name="container")
    try:
        yield container
    finally:
        container.abandon()
        await task


async def up(container):
    """Its trap is set."""

    def said():
        log = container.spec.log
        return log.exists() and "up" in log.read_text()

    await eventually(said, what="the program to be up")


def said(container):
    return container.spec.log.read_text().split()


def probe(*, succeeds, failures=1):
    async def check():
        return succeeds

    return Probe(check=check, period_seconds=0.01, delay_seconds=0, failures=failures, successes=1)


async def test_it_is_asked_to_end_and_ends(spec):
    async with running(spec(RUNS_UNTIL_TERM)) as container:
        await up(container)
        await container.stop(10)

    assert said(container) == ["up", "term"]
    assert container.state["terminated"]["exitCode"] == 0
    assert container.restarts == 0


async def test_one_that_does_not_end_is_killed(spec):
    async with running(spec(IGNORES_TERM)) as container:
        await up(container)
        await container.stop(0)

    assert said(container) == ["up", "term"]
    assert container.state["terminated"]["exitCode"] == 137


async def test_a_hook_runs_before_it_is_asked_to_end(spec, tmp_path):
    hook = ("/bin/sh", "-c", "echo hook")

    async with running(spec(RUNS_UNTIL_TERM, pre_stop_argv=hook)) as container:
        await up(container)
        await container.stop(10)

    assert said(container) == ["up", "hook", "term"]


async def test_a_hook_ends_with_the_grace_time(spec):
    hook = ("/bin/sh", "-c", "exec sleep 60")

    async with running(spec(RUNS_UNTIL_TERM, pre_stop_argv=hook)) as container:
        await up(container)
        await container.stop(0.1)

    assert said(container) == ["up", "term"]


async def test_one_that_crashes_is_started_again_and_says_so(spec):
    async with running(spec("echo x; exit 3")) as container:
        await eventually(lambda: container.restarts >= 3, what="three restarts")

    assert container.last_state["terminated"]["exitCode"] == 3
    assert len(said(container)) >= 3


async def test_one_that_is_killed_is_started_again(spec):
    async with running(spec("echo up; exec sleep 60")) as container:
        await up(container)
        first = container.pid
        container.kill()
        await eventually(lambda: container.pid not in {None, first}, what="another process")

        assert container.last_state["terminated"]["exitCode"] == 137


async def test_an_init_container_runs_until_it_succeeds(spec, tmp_path):
    script = f"if test -e {tmp_path}/second; then exit 0; fi; touch {tmp_path}/second; exit 1"
    container = Container(spec(script), changed=lambda: None, backoff_seconds=0.01)

    await container.run(until_success=True)

    assert container.restarts == 1
    assert container.state["terminated"]["reason"] == "Completed"


async def test_without_probes_it_is_ready_as_soon_as_it_runs(spec):
    async with running(spec("exec sleep 60")) as container:
        await eventually(lambda: container.ready and container.started, what="readiness")


async def test_it_is_not_ready_before_it_has_started(spec):
    probes = {
        "startupProbe": probe(succeeds=False, failures=1_000_000),
        "readinessProbe": probe(succeeds=True),
    }

    async with running(spec("echo up; exec sleep 60", probes=probes)) as container:
        await up(container)

        assert not container.started
        assert not container.ready


@pytest.mark.parametrize("kind", ["startupProbe", "livenessProbe"])
async def test_a_failed_probe_starts_it_again(spec, kind):
    probes = {kind: probe(succeeds=False)}

    async with running(spec("exec sleep 60", probes=probes)) as container:
        await eventually(lambda: container.restarts >= 2, what="restarts")

    assert container.last_state["terminated"]["exitCode"] == 143


async def test_a_port_that_another_program_has_is_named(spec):
    port = free_port()
    with socket.socket() as other:
        other.bind(("0.0.0.0", port))
        other.listen()

        async with running(spec("exec sleep 60", ports=[port])) as container:
            await eventually(lambda: container.restarts > 0, what="a try")

            assert f"port {port}" in container.last_state["terminated"]["message"]
