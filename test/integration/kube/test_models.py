"""InferenceModel, row by row: who owns a model name, and what the API server keeps out.

Rows T1 to T10 are those of the specification (datastore-and-reconcilers, 14), A1 to A7 those of
its conformance list (inference-api, 14). Ages are real: where a row needs an older object it was
created before, and where two may be of the same second the older one comes first by name, too,
which breaks ties. ``test_a4`` has names and ages disagree.
"""

import random
from dataclasses import dataclass, field
from typing import Any

import pytest

from epp.requestcontrol.model_resolution import UnknownModelPolicy, resolve_model
from epp.testing.api_admin import identity
from epp.testing.api_connection import StatusError
from epp.testing.kube_manifests import HOLD, model, pool
from epp.testing.stack import eventually


def put(*wanted):
    async def step(people):
        await people.put(*wanted)

    return step


def delete(*gone):
    async def step(people):
        await people.delete(*gone)

    return step


def repoint(manifest, to):
    async def step(people):
        await people.repoint(manifest, to)

    return step


def create_again(manifest):
    async def step(people):
        await people.delete(manifest)
        await people.put(manifest)

    return step


def elsewhere(manifest):
    async def step(people):
        await people.admin.create(manifest, namespace="default")
        await people.admin.delete(manifest, namespace="default")

    return step


@dataclass(frozen=True, kw_only=True)
class Row:
    """Models there are, besides a pool; who owns the names; what happens; who owns them then."""

    given: tuple[Any, ...] = ()
    before: dict[str, Any] = field(default_factory=dict)
    event: object
    want: dict[str, Any]


ROWS = {
    "t1-the-first-object": Row(event=put(model("m1")), want={"food": "m1"}),
    "t2-the-same-object-created-again": Row(
        given=(model("m1"),),
        before={"food": "m1"},
        event=create_again(model("m1", criticality="Critical")),
        want={"food": "m1"},
    ),
    "t3-a-younger-object": Row(
        given=(model("m1"),), before={"food": "m1"}, event=put(model("m2")), want={"food": "m1"}
    ),
    "t4-an-older-object-comes-later": Row(
        given=(model("m1", pool="q"), model("m2")),
        before={"food": "m2"},
        event=repoint(model("m1"), "pool"),
        want={"food": "m1"},
    ),
    "t5-another-name": Row(
        given=(model("m2", "chat"),),
        before={"chat": "m2"},
        event=put(model("m1")),
        want={"chat": "m2", "food": "m1"},
    ),
    "t6-the-owner-leaves-for-another-pool": Row(
        given=(model("m1"), model("m3")),
        before={"food": "m1"},
        event=repoint(model("m1"), "q"),
        want={"food": "m3"},
    ),
    "t7-the-owner-goes-and-the-next-is-going": Row(
        given=(model("m1"), model("m2", finalizers=(HOLD,)), model("m3")),
        before={"food": "m1"},
        event=delete(model("m2"), model("m1")),
        want={"food": "m3"},
    ),
    "t8-an-object-that-owned-nothing-goes": Row(
        given=(model("m1"), model("m2")),
        before={"food": "m1"},
        event=delete(model("m2")),
        want={"food": "m1"},
    ),
    "t9-the-owner-goes-and-another-pool-has-one": Row(
        given=(model("m1"), model("m5", pool="q")),
        before={"food": "m1"},
        event=delete(model("m1")),
        want={},
    ),
    "t10-the-same-name-in-another-namespace": Row(
        given=(model("m1"),),
        before={"food": "m1"},
        event=elsewhere(model("m1", "drink")),
        want={"food": "m1"},
    ),
    "a5-the-next-one-takes-over-unasked": Row(
        given=(model("a"), model("b")),
        before={"food": "a"},
        event=delete(model("a")),
        want={"food": "b"},
    ),
    "the-owner-waits-for-its-finalizer": Row(
        given=(model("a", finalizers=(HOLD,)), model("b")),
        before={"food": "a"},
        event=delete(model("a")),
        want={"food": "b"},
    ),
    "a-move-between-foreign-pools": Row(
        given=(model("a"), model("b", pool="q")),
        before={"food": "a"},
        event=repoint(model("b"), "r"),
        want={"food": "a"},
    ),
    "names-differ-by-case": Row(
        given=(model("a", "food"),),
        before={"food": "a"},
        event=put(model("b", "Food")),
        want={"food": "a", "Food": "b"},
    ),
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
async def test_a_name_has_its_owner(world, people, row):
    await people.put(pool(), *row.given)
    await world.until(lambda: world.models == row.before, what="the owners before")

    await row.event(people)

    await world.until(lambda: world.models == row.want, what="the owners after")
    await people.put(model("zz", "later"))
    await world.until(lambda: "later" in world.models, what="a later model")
    assert world.models == {**row.want, "later": "zz"}


def test_the_rows_of_the_specification_are_there():
    assert {f"t{number}" for number in range(1, 11)} <= {name.split("-")[0] for name in ROWS}


async def test_t2_the_new_object_counts(world, people):
    await people.put(pool(), model("m1"))
    await world.until(lambda: world.models == {"food": "m1"})
    assert world.datastore.model_get("food").spec.criticality is None

    await people.delete(model("m1"))
    await people.put(model("m1", criticality="Critical"))

    await world.until(
        lambda: (
            (owner := world.datastore.model_get("food")) is not None
            and owner.spec.criticality == "Critical"
        )
    )


@pytest.mark.parametrize("known", ["while-running", "at-the-start"])
async def test_a4_the_older_one_owns_the_name_whatever_its_own(make_world, people, known):
    await people.put(pool())
    [older] = await people.put(model("z-older"))
    await a_second_after(people, older)
    if known == "while-running":
        async with make_world() as world:
            await world.until(lambda: world.models == {"food": "z-older"})
            [younger] = await people.put(model("a-younger"))
            await world.caught_up(younger)
            assert world.models == {"food": "z-older"}
    else:
        await people.put(model("a-younger"))
        async with make_world() as world:
            await world.until(lambda: world.models == {"food": "z-older"})


async def a_second_after(people, stored):
    """Wait until a new object would be younger by the API's clock, which has whole seconds."""

    async def is_later():
        probe = await people.admin.dry_run(model("probe"), namespace=people.name)
        return probe["metadata"]["creationTimestamp"] > stored["metadata"]["creationTimestamp"]

    await eventually(is_later, what="the next second")


async def test_models_wait_for_their_pool_and_go_with_it(world, people):
    [stored] = await people.put(model("a"))
    await world.caught_up(stored)
    assert world.models == {}

    await people.put(pool())
    await world.until(lambda: world.models == {"food": "a"})
    await people.delete(pool())
    await world.until(lambda: world.models == {})
    await people.put(pool())
    await world.until(lambda: world.models == {"food": "a"})


async def test_a1_half_weighted_targets_are_refused(people):
    with pytest.raises(StatusError, match="InferenceModel.*targetModels"):
        await people.put(model("a", targets={"r7": 1, "r8": None}))


async def test_a2_a_model_name_cannot_change(people, world):
    await people.put(pool(), model("a"))
    await world.until(lambda: world.models == {"food": "a"})

    with pytest.raises(StatusError, match=r"spec\.modelName"):
        await people.patch(model("a"), {"spec": {"modelName": "drink"}})

    await people.put(model("zz", "later"))
    await world.until(lambda: world.models == {"food": "a", "later": "zz"})


@pytest.mark.parametrize(
    ("criticality", "priority"),
    [
        pytest.param(None, 1, id="a3-unset-is-standard"),
        pytest.param("Standard", 1, id="standard"),
        pytest.param("Critical", 2, id="critical"),
        pytest.param("Sheddable", -1, id="sheddable"),
    ],
)
async def test_a3_criticality_decides_the_priority(world, people, criticality, priority):
    await people.put(pool(), model("a", criticality=criticality))
    await world.until(lambda: world.models == {"food": "a"})

    resolved = resolve_model("food", world.datastore, UnknownModelPolicy.AUTO, random.Random(1))

    assert (resolved.priority, resolved.critical) == (priority, criticality == "Critical")


@pytest.mark.parametrize(
    "refused",
    [
        pytest.param(pool(ports=(8200, 8200)), id="a6-a-port-twice"),
        pytest.param(
            {
                **identity("inference.networking.k8s.io/v1", "InferencePool", "p"),
                "spec": {
                    "selector": {"matchLabels": {"app": "x"}},
                    "targetPorts": [{"number": 8000}],
                    "endpointPickerRef": {"name": "epp"},
                },
            },
            id="a7-a-service-without-a-port",
        ),
        pytest.param(pool(ports=tuple(range(8000, 8009))), id="nine-ports"),
        pytest.param(pool(selector={}), id="an-empty-selector-of-v1"),
    ],
)
async def test_a_pool_is_refused(people, refused):
    with pytest.raises(StatusError) as caught:
        await people.put(refused)

    assert caught.value.status == 422


async def test_a12_a_pool_without_a_picker_is_served(world, people):
    bare = pool()
    del bare["spec"]["endpointPickerRef"]

    await people.put(bare)

    await world.until(lambda: world.datastore.pool_has_synced)
    assert world.datastore.pool_get().failure_mode is None
