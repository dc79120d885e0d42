"""What the endpoint picker writes: the condition of an InferenceModel, and Events.

Written as the ServiceAccount that we ship: whatever it may not do would fail here.
"""

import pytest

from epp.testing.api_admin import identity
from epp.testing.kube_manifests import HOLD, model, pool
from epp.testing.kube_world import CONTROLLER_NAME
from epp.testing.stack import eventually

EVENTS = "events.k8s.io/v1"


@pytest.fixture
def judged(people, admin):
    """Reads what has been written, and waits for what should be."""
    return Judged(people, admin)


class Judged:
    def __init__(self, people, admin):
        self._people = people
        self._admin = admin

    async def conditions(self, name):
        stored = await self._admin.get(model(name), namespace=self._people.name)
        return {c["type"]: c for c in stored.get("status", {}).get("conditions", ())}

    async def accepted(self, name, status, reason):
        """Wait until the condition says this; return all of it."""

        async def says():
            condition = (await self.conditions(name)).get("Accepted", {})
            return (condition.get("status"), condition.get("reason")) == (status, reason) and (
                condition
            )

        return await eventually(says, what=f"{name} Accepted={status} {reason}")

    async def events(self, name):
        """``(type, reason, note)`` of the Events about a model."""
        listed = await self._admin.list(EVENTS, "Event", namespace=self._people.name)
        return [
            (event["type"], event["reason"], event["note"])
            for event in sorted(listed, key=lambda event: event["eventTime"])
            if event["regarding"]["name"] == name
        ]

    async def event(self, name, reason):
        """Wait for an Event of a reason; return its note."""

        async def recorded():
            return [note for _, why, note in await self.events(name) if why == reason]

        return (await eventually(recorded, what=f"event {reason} of {name}"))[-1]


@pytest.mark.usefixtures("world")
async def test_an_accepted_model_says_so(people, judged):
    await people.put(pool(), model("a"))

    condition = await judged.accepted("a", "True", "Accepted")

    assert condition["message"] == f"model name 'food' of pool {people.name}/pool is this object's"
    assert condition["observedGeneration"] == 1
    await judged.event("a", "Accepted")
    assert [kind for kind, *_ in await judged.events("a")] == ["Normal"]


@pytest.mark.usefixtures("world")
async def test_a_conflict_names_the_winner(people, judged):
    await people.put(pool(), model("a"))
    winner = await people.admin.get(model("a"), namespace=people.name)
    await people.put(model("b"))

    condition = await judged.accepted("b", "False", "ModelNameInUse")

    created = winner["metadata"]["creationTimestamp"]
    said = f"model name 'food' belongs to {people.name}/a, created {created}"
    assert condition["message"] == said
    assert await judged.event("b", "ModelNameInUse") == said
    assert [kind for kind, *_ in await judged.events("b")] == ["Warning"]
    await judged.accepted("a", "True", "Accepted")


@pytest.mark.usefixtures("world")
async def test_the_next_one_is_accepted_when_the_winner_goes(people, judged):
    await people.put(pool(), model("a"), model("b"), model("c"))
    await judged.accepted("b", "False", "ModelNameInUse")
    await judged.accepted("c", "False", "ModelNameInUse")

    await people.delete(model("a"))

    await judged.accepted("b", "True", "Accepted")
    condition = await judged.accepted("c", "False", "ModelNameInUse")
    await eventually(lambda: said_of("c", judged, f"{people.name}/b"), what="the new winner")
    assert condition["type"] == "Accepted"
    await judged.event("b", "Accepted")


async def said_of(name, judged, owner):
    return f"belongs to {owner}," in (await judged.conditions(name))["Accepted"]["message"]


@pytest.mark.usefixtures("world")
async def test_a_winner_that_is_being_deleted_has_lost(people, judged):
    await people.put(pool(), model("a", finalizers=(HOLD,)), model("b"))
    await judged.accepted("b", "False", "ModelNameInUse")

    await people.delete(model("a"))

    await judged.accepted("b", "True", "Accepted")


@pytest.mark.usefixtures("world")
async def test_a_model_without_its_pool_is_pending(people, judged):
    await people.put(pool(), model("a"))
    before = await judged.accepted("a", "True", "Accepted")

    await people.delete(pool())
    await judged.accepted("a", "Unknown", "Pending")
    await people.put(pool())
    after = await judged.accepted("a", "True", "Accepted")

    assert after["lastTransitionTime"] >= before["lastTransitionTime"]


@pytest.mark.usefixtures("world")
async def test_a_model_that_leaves_loses_our_condition_and_no_other(people, judged, admin):
    await people.put(pool(), model("a"))
    await judged.accepted("a", "True", "Accepted")
    own = {
        "type": "Reviewed",
        "status": "True",
        "reason": "ByHand",
        "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    await by_hand(admin, people, own)

    await people.repoint(model("a"), "another")

    async def ours_is_gone():
        return set(await judged.conditions("a")) == {"Reviewed"}

    await eventually(ours_is_gone, what="only the condition of the person to stay")


async def by_hand(admin, people, condition):
    """A condition that a person applies beside ours."""
    path = await admin.path(model("a"), namespace=people.name, subresource="status")
    body = {
        **identity("inference.networking.x-k8s.io/v1alpha2", "InferenceModel", "a"),
        "status": {"conditions": [condition]},
    }
    await admin.request(
        "PATCH",
        path,
        query={"fieldManager": "person"},
        body=body,
        content_type="application/apply-patch+yaml",
    )


async def test_what_is_said_already_is_not_written_again(make_world, people, judged, admin):
    await people.put(pool(), model("a"), model("b"))
    async with make_world():
        await judged.accepted("a", "True", "Accepted")
        await judged.accepted("b", "False", "ModelNameInUse")
        await judged.event("b", "ModelNameInUse")
    before = [await admin.get(model(name), namespace=people.name) for name in "ab"]

    async with make_world() as restarted:
        await restarted.until(lambda: restarted.models == {"food": "a"})
        await restarted.idle()
        assert [outcome for _, outcome in restarted.outcomes if outcome != "success"] == []

    after = [await admin.get(model(name), namespace=people.name) for name in "ab"]
    assert after == before
    assert len(await judged.events("b")) == 1


async def test_a_changed_spec_is_observed(world, people, judged):
    await people.put(pool(), model("a"))
    await judged.accepted("a", "True", "Accepted")

    await people.patch(model("a"), {"spec": {"criticality": "Critical"}})

    async def observed():
        return (await judged.conditions("a"))["Accepted"]["observedGeneration"] == 2

    await eventually(observed, what="generation 2 to be observed")
    await world.idle()
    assert len(await judged.events("a")) == 1


@pytest.mark.usefixtures("world")
async def test_events_are_what_the_api_asks_for(people, judged, admin):
    await people.put(pool(), model("a"))
    await judged.event("a", "Accepted")

    [event] = await admin.list(EVENTS, "Event", namespace=people.name)

    stored = await admin.get(model("a"), namespace=people.name)
    assert event["reportingController"] == CONTROLLER_NAME
    assert event["reportingInstance"] == "test"
    assert event["action"] == "Accept"
    assert event["regarding"] == {
        "apiVersion": "inference.networking.x-k8s.io/v1alpha2",
        "kind": "InferenceModel",
        "namespace": people.name,
        "name": "a",
        "uid": stored["metadata"]["uid"],
    }
