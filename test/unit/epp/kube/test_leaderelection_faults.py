"""What an elector makes of garbage, of refusals, and of answers that are no Leases."""

from typing import Any

import pytest
from structlog.testing import capture_logs

from epp.kube.errors import ApiError, ForbiddenError, InvalidError, NotFoundError
from epp.testing.lease_world import LeaseWorld, Trouble

LEASE = 15.0
RETRY = 2.0


@pytest.fixture
async def world():
    world = LeaseWorld()
    yield world
    await world.close()


@pytest.mark.parametrize(
    ("spec", "at_once"),
    [
        pytest.param(None, True, id="no-spec"),
        pytest.param("garbage", True, id="spec-is-text"),
        pytest.param({}, True, id="empty-spec"),
        pytest.param({"holderIdentity": None, "leaseTransitions": "many"}, True, id="null-holder"),
        pytest.param({"holderIdentity": 7, "acquireTime": 3}, True, id="holder-is-a-number"),
        pytest.param(
            {"holderIdentity": "x", "leaseDurationSeconds": None}, False, id="no-duration"
        ),
        pytest.param({"holderIdentity": "x", "leaseDurationSeconds": -5}, False, id="negative"),
        pytest.param({"holderIdentity": "x", "leaseDurationSeconds": "9"}, False, id="text"),
        pytest.param({"holderIdentity": "x", "leaseDurationSeconds": True}, False, id="boolean"),
        pytest.param({"holderIdentity": "x", "renewTime": "next year"}, False, id="renew-time"),
    ],
)
async def test_a_lease_with_garbage_is_taken_over_in_time(
    world: LeaseWorld, spec: Any, at_once: bool
) -> None:
    world.store.store({"metadata": {"name": "lock"}, "spec": spec})
    a = await world.start("a")

    took = await world.run_until_leader(a)

    assert took < 0.1 if at_once else LEASE < took < LEASE + RETRY
    assert world.store.spec["holderIdentity"] == "a"
    assert world.store.spec["leaseDurationSeconds"] == 15


async def test_transitions_stay_an_int32(world: LeaseWorld) -> None:
    world.store.store(
        {"metadata": {"name": "lock"}, "spec": {"holderIdentity": "", "leaseTransitions": 2**40}}
    )
    a = await world.start("a")

    await world.run_until_leader(a)

    assert world.store.spec["leaseTransitions"] == 2**31 - 1


async def test_a_record_of_another_duration_is_respected(world: LeaseWorld) -> None:
    spec = {"holderIdentity": "x", "leaseDurationSeconds": 40, "leaseTransitions": 6}
    world.store.store({"metadata": {"name": "lock"}, "spec": spec})
    a = await world.start("a")

    took = await world.run_until_leader(a)

    assert 40.0 < took < 40.1
    assert world.store.spec["leaseTransitions"] == 7


async def test_a_missing_permission_is_said_once_and_tried_for_ever(world: LeaseWorld) -> None:
    a = await world.start("a")
    refusal = ForbiddenError("get leases.coordination.k8s.io ns/lock: not allowed", status=403)
    a.client.fault = lambda _method: refusal

    with capture_logs() as logs:
        await world.run(60.0)
        tries = len(a.client.calls)
        a.client.fault = lambda _method: None
        await world.run_until_leader(a)

    warnings = [line for line in logs if line["log_level"] == "warning"]
    assert len(warnings) == 1
    assert "get leases.coordination.k8s.io ns/lock" in str(warnings[0]["error"])
    assert tries >= 29


@pytest.mark.parametrize(
    ("verb", "method"),
    [
        pytest.param("get leases.coordination.k8s.io ns/lock", "GET", id="read"),
        pytest.param("create leases.coordination.k8s.io ns/lock", "POST", id="make"),
    ],
)
async def test_a_request_is_named_by_verb_and_resource(
    world: LeaseWorld, verb: str, method: str
) -> None:
    a = await world.start("a")
    a.client.troubles = [Trouble(start=0.0, seconds=99.0, kind="refused")]
    if method == "POST":
        a.client.fault = lambda asked: NotFoundError("none") if asked == "GET" else None

    with capture_logs() as logs:
        await world.run(5.0)

    assert [str(line["error"]) for line in logs] == [f"{verb}: refused"]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"<html>gateway error</html>", id="not-json"),
        pytest.param(b"[1]", id="not-an-object"),
        pytest.param(b"{}", id="no-metadata"),
        pytest.param(b'{"metadata":{"name":"lock"}}', id="never-stored"),
        pytest.param(InvalidError("refused by a webhook", status=422), id="invalid"),
    ],
)
async def test_an_answer_that_is_no_lease_is_a_failed_try(
    world: LeaseWorld, answer: bytes | ApiError
) -> None:
    a = await world.start("a")
    a.client.fault = lambda _method: answer

    with capture_logs() as logs:
        await world.run(30.0)
        led_meanwhile = a.leads
        a.client.fault = lambda _method: None
        await world.run(RETRY)

    assert not led_meanwhile
    assert a.leads
    assert [line["log_level"] for line in logs] == ["warning", "info", "info"]
