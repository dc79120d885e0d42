"""InferenceObjective and InferenceModelRewrite of both API groups, row by row.

The rows are those of the reconciler tables (datastore-and-reconcilers, 3.4 and 3.5), and A8 to A10
of the conformance list (inference-api, 14).
"""

from dataclasses import dataclass, field
from typing import Any

import pytest
from structlog.testing import capture_logs

from epp.testing.kube_manifests import (
    CURRENT,
    HOLD,
    LEGACY,
    objective,
    old_pool,
    pool,
    rewrite,
    rule,
)

V1_GROUP = "inference.networking.k8s.io"
OLD_GROUP = "inference.networking.x-k8s.io"
VERSIONS = (LEGACY, CURRENT)
GROUPS = pytest.mark.parametrize(
    "api_version", [pytest.param(CURRENT, id="llm-d"), pytest.param(LEGACY, id="x-k8s")]
)


def put(*wanted):
    async def step(people):
        await people.put(*wanted)

    return step


def delete(*gone):
    async def step(people):
        await people.delete(*gone)

    return step


@dataclass(frozen=True, kw_only=True)
class Row:
    """Objects there are, besides a pool; what counts; what happens; what counts then."""

    given: tuple[Any, ...] = ()
    before: dict[str, Any] = field(default_factory=dict)
    event: object
    want: dict[str, Any]
    pool: dict[str, Any] = field(default_factory=pool)


OBJECTIVES = {
    "set": Row(event=put(objective("batch", -5)), want={"batch": -5}),
    "without-a-priority": Row(event=put(objective("batch")), want={"batch": 0}),
    "changed": Row(
        given=(objective("batch", -5),),
        before={"batch": -5},
        event=put(objective("batch", 7)),
        want={"batch": 7},
    ),
    "deleted": Row(
        given=(objective("batch", -5),),
        before={"batch": -5},
        event=delete(objective("batch")),
        want={},
    ),
    "waits-for-its-finalizer": Row(
        given=(objective("batch", -5, finalizers=(HOLD,)),),
        before={"batch": -5},
        event=delete(objective("batch")),
        want={},
    ),
    "leaves-for-another-pool": Row(
        given=(objective("batch", -5),),
        before={"batch": -5},
        event=put(objective("batch", -5, pool="other")),
        want={},
    ),
    "a8-names-the-pool-in-the-older-group": Row(
        event=put(objective("batch", -5, pool_group=OLD_GROUP)), want={}
    ),
    "leaves-for-the-pool-of-the-older-group": Row(
        given=(objective("batch", -5),),
        before={"batch": -5},
        event=put(objective("batch", -5, pool_group=OLD_GROUP)),
        want={},
    ),
    "a8-names-the-pool-in-the-newer-group": Row(
        pool=old_pool(),
        given=(objective("right", 1, pool_group=OLD_GROUP),),
        before={"right": 1},
        event=put(objective("wrong", 2, pool_group=V1_GROUP)),
        want={"right": 1},
    ),
    "the-older-group-alone": Row(
        event=put(objective("batch", -5, api_version=LEGACY)), want={"batch": -5}
    ),
    "the-newer-group-rules-the-older-out": Row(
        given=(objective("old", 1, api_version=LEGACY),),
        before={"old": 1},
        event=put(objective("new", 2, api_version=CURRENT)),
        want={"new": 2},
    ),
    "the-older-group-is-back": Row(
        given=(objective("old", 1, api_version=LEGACY), objective("new", 2)),
        before={"new": 2},
        event=delete(objective("new")),
        want={"old": 1},
    ),
    "another-version-of-the-pool": Row(
        given=(
            objective("new", 1, pool_group=V1_GROUP),
            objective("old", 2, pool_group=OLD_GROUP),
            old_pool(),
        ),
        before={"new": 1},
        event=delete(pool()),
        want={"old": 2},
    ),
}


@pytest.mark.parametrize("row", OBJECTIVES.values(), ids=OBJECTIVES)
async def test_objectives_count(world, people, row):
    await people.put(row.pool, *row.given)
    await world.until(lambda: world.objectives == row.before, what="the objectives before")

    await row.event(people)

    await world.until(lambda: world.objectives == row.want, what="the objectives after")
    await world.caught_up(*await people.put(*(later_objective(v) for v in VERSIONS)))
    assert world.objectives == row.want


def later_objective(api_version):
    """Counts for nobody, but whoever knows it knows all that came before in its group."""
    return objective("later", api_version=api_version, pool="other")


REWRITES = {
    "exact": Row(event=put(rewrite("r", rule("t", match=["bot"]))), want={"bot": ["t"]}),
    "generic": Row(event=put(rewrite("r", rule("t"))), want={"bot": ["t"], "any": ["t"]}),
    "several-names": Row(
        event=put(rewrite("r", rule("t", match=["bot", "any"]))), want={"bot": ["t"], "any": ["t"]}
    ),
    "several-targets": Row(
        event=put(rewrite("r", rule({"t7": 90, "t8": 10}, match=["bot"]))),
        want={"bot": ["t7", "t8"]},
    ),
    "a9-an-exact-rule-before-an-older-generic-one": Row(
        given=(rewrite("a", rule("generic")),),
        before={"bot": ["generic"], "any": ["generic"]},
        event=put(rewrite("b", rule("exact", match=["bot"]))),
        want={"bot": ["exact"], "any": ["generic"]},
    ),
    "the-older-rewrite-wins": Row(
        given=(rewrite("a", rule("older", match=["bot"])),),
        before={"bot": ["older"]},
        event=put(rewrite("b", rule("younger", match=["bot"]))),
        want={"bot": ["older"]},
    ),
    "the-next-rewrite-takes-over": Row(
        given=(
            rewrite("a", rule("older", match=["bot"])),
            rewrite("b", rule("younger", match=["bot"])),
        ),
        before={"bot": ["older"]},
        event=delete(rewrite("a")),
        want={"bot": ["younger"]},
    ),
    "the-first-rule-of-a-rewrite-wins": Row(
        event=put(rewrite("r", rule("first", match=["bot"]), rule("second", match=["bot"]))),
        want={"bot": ["first"]},
    ),
    "rules-are-replaced": Row(
        given=(rewrite("r", rule("t", match=["bot"])),),
        before={"bot": ["t"]},
        event=put(rewrite("r", rule("u", match=["any"]))),
        want={"any": ["u"]},
    ),
    "a10-split-is-read-as-targets": Row(
        event=put(rewrite("r", rule("t", match=["bot"], field="split"))), want={"bot": ["t"]}
    ),
    "waits-for-its-finalizer": Row(
        given=(rewrite("r", rule("t"), finalizers=(HOLD,)),),
        before={"bot": ["t"], "any": ["t"]},
        event=delete(rewrite("r")),
        want={},
    ),
    "leaves-for-another-pool": Row(
        given=(rewrite("r", rule("t")),),
        before={"bot": ["t"], "any": ["t"]},
        event=put(rewrite("r", rule("t"), pool="other")),
        want={},
    ),
    "a8-names-the-pool-in-the-older-group": Row(
        event=put(rewrite("r", rule("t"), pool_group=OLD_GROUP)), want={}
    ),
    "the-older-group-alone": Row(
        event=put(rewrite("r", rule("t", match=["bot"]), api_version=LEGACY)), want={"bot": ["t"]}
    ),
    "the-newer-group-rules-the-older-out": Row(
        given=(rewrite("old", rule("o"), api_version=LEGACY),),
        before={"bot": ["o"], "any": ["o"]},
        event=put(rewrite("new", rule("n", match=["bot"]), api_version=CURRENT)),
        want={"bot": ["n"]},
    ),
    "the-older-group-is-back": Row(
        given=(rewrite("old", rule("o"), api_version=LEGACY), rewrite("new", rule("n"))),
        before={"bot": ["n"], "any": ["n"]},
        event=delete(rewrite("new")),
        want={"bot": ["o"], "any": ["o"]},
    ),
}


def targets(world):
    """Targets of the names that the rows are about; those without a rule are left out."""
    found = {name: world.target_of(name) for name in ("bot", "any")}
    return {name: names for name, names in found.items() if names}


@pytest.mark.parametrize("row", REWRITES.values(), ids=REWRITES)
async def test_rewrites_apply(world, people, row):
    await people.put(row.pool, *row.given)
    await world.until(lambda: targets(world) == row.before, what="the rules before")

    await row.event(people)

    await world.until(lambda: targets(world) == row.want, what="the rules after")
    later = [rewrite("later", rule("l"), api_version=v, pool="other") for v in VERSIONS]
    await world.caught_up(*await people.put(*later))
    assert targets(world) == row.want


@GROUPS
async def test_both_kinds_come_and_go_in_each_group(world, people, api_version):
    own = objective("batch", -5, api_version=api_version)
    rules = rewrite("r", rule("t", match=["bot"]), api_version=api_version)
    await people.put(own, rules)

    await people.put(pool())
    await world.until(lambda: (world.objectives, targets(world)) == WITH_POOL)
    await people.delete(pool())
    await world.until(lambda: (world.objectives, targets(world)) == ({}, {}))
    await people.put(pool())
    await world.until(lambda: (world.objectives, targets(world)) == WITH_POOL)


WITH_POOL = ({"batch": -5}, {"bot": ["t"]})


@GROUPS
async def test_a_start_after_the_fact_finds_them(make_world, people, api_version):
    await people.put(
        pool(),
        objective("batch", -5, api_version=api_version),
        rewrite("r", rule("t", match=["bot"]), api_version=api_version),
    )

    async with make_world() as late:
        await late.until(lambda: (late.objectives, targets(late)) == WITH_POOL)


async def test_ignored_objects_are_spoken_of_once(world, people):
    with capture_logs() as logs:
        await people.put(pool(), objective("old", 1, api_version=LEGACY), objective("new", 2))
        await world.until(lambda: world.objectives == {"new": 2})
        await people.put(objective("new", 3))
        await world.until(lambda: world.objectives == {"new": 3})

    told = [line for line in logs if line["event"] == "objects of the older API group are ignored"]
    assert [(line["kind"], line["ignored"]) for line in told] == [("InferenceObjective", 1)]
