"""Which rewrite rules the pool has after the kind was reconciled."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from epp.testing.builders import make_old_pool, make_pool, make_rewrite, make_rule
from epp.testing.pool_world import PoolWorld
from epp_api.meta import NamespacedName
from epp_api.v1alpha2.inferencemodelrewrite_types import InferenceModelRewrite
from epp_api.v1alpha2.shared_types import LEGACY_API_VERSION

OLD_GROUP = "inference.networking.x-k8s.io"
FOOD = make_rule("v1", match=["food"])


async def serve(world: PoolWorld) -> None:
    world.pools_v1.upsert(make_pool())
    await world.reconcile_pool()


@pytest.fixture
async def served(world: PoolWorld) -> PoolWorld:
    """A world with a v1 pool."""
    await serve(world)
    return world


@pytest.mark.parametrize(
    ("rewrite", "want"),
    [
        pytest.param(make_rewrite("a", FOOD), {"food": ["v1"]}, id="of-the-pool"),
        pytest.param(make_rewrite("a", FOOD, deleting=True), {}, id="being-deleted"),
        pytest.param(make_rewrite("a", FOOD, pool="q"), {}, id="of-another-pool"),
        pytest.param(make_rewrite("a", FOOD, pool=None), {}, id="of-no-pool"),
        pytest.param(make_rewrite("a", FOOD, pool_group=OLD_GROUP), {}, id="A8-of-another-group"),
        pytest.param(make_rewrite("a", FOOD, namespace="other"), {}, id="of-another-namespace"),
    ],
)
async def test_what_counts(
    served: PoolWorld, rewrite: InferenceModelRewrite, want: dict[str, list[str]]
) -> None:
    served.rewrites.upsert(rewrite)

    await served.reconcile_rewrites()

    assert served.rewritten("food") == want


async def test_a9_an_exact_rule_wins_over_an_older_generic_one(served: PoolWorld) -> None:
    served.rewrites.upsert(make_rewrite("generic", make_rule("base"), created=1))
    served.rewrites.upsert(make_rewrite("exact", FOOD, created=2))

    await served.reconcile_rewrites()

    assert served.rewritten("food", "chat") == {"food": ["v1"], "chat": ["base"]}


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(None, id="deleted"),
        pytest.param(make_rewrite("a", FOOD, deleting=True, created=1), id="being-deleted"),
        pytest.param(make_rewrite("a", FOOD, pool="q", created=1), id="moved-to-another-pool"),
        pytest.param(make_rewrite("a", created=1), id="lost-its-rules"),
    ],
)
async def test_the_next_in_line_follows_without_an_event_of_its_own(
    served: PoolWorld, change: InferenceModelRewrite | None
) -> None:
    served.rewrites.upsert(make_rewrite("a", FOOD, created=1))
    served.rewrites.upsert(make_rewrite("b", make_rule("v2", match=["food"]), created=2))
    await served.reconcile_rewrites()
    before = served.rewritten("food")

    if change is None:
        served.rewrites.delete(NamespacedName("default", "a"))
    else:
        served.rewrites.upsert(change)
    await served.reconcile_rewrites()

    assert before == {"food": ["v1"]}
    assert served.rewritten("food") == {"food": ["v2"]}


async def test_without_a_pool_no_rewrite_counts(world: PoolWorld) -> None:
    world.rewrites.upsert(make_rewrite("a", FOOD))

    await world.reconcile_rewrites()

    assert world.rewritten("food") == {}


async def test_a_pool_of_the_older_group_has_its_own_rewrites(world: PoolWorld) -> None:
    world.rewrites.upsert(make_rewrite("new", FOOD, created=1))
    world.rewrites.upsert(
        make_rewrite("old", make_rule("v2", match=["food"]), pool_group=OLD_GROUP, created=2)
    )
    world.pools_v1alpha2.upsert(make_old_pool())
    await world.reconcile_pool()
    before = world.rewritten("food")

    world.pools_v1.upsert(make_pool())
    await world.reconcile_pool()

    assert before == {"food": ["v2"]}
    assert world.rewritten("food") == {"food": ["v1"]}


async def test_d1_a_pool_that_is_created_again_reloads_rewrites(served: PoolWorld) -> None:
    served.rewrites.upsert(make_rewrite("a", FOOD))
    await served.reconcile_rewrites()
    served.pools_v1.delete(NamespacedName("default", "pool"))
    await served.reconcile_pool()
    cleared = served.rewritten("food")

    await serve(served)

    assert cleared == {}
    assert served.rewritten("food") == {"food": ["v1"]}


@pytest.mark.parametrize(
    ("rewrite", "problems"),
    [
        pytest.param(make_rewrite("a", FOOD), [], id="nothing-to-say"),
        pytest.param(
            make_rewrite("a", FOOD, make_rule({}, match=["chat"])), [(1, "no targets")], id="empty"
        ),
        pytest.param(make_rewrite("a", make_rule("")), [(0, "no targets")], id="nameless-target"),
        pytest.param(
            make_rewrite("a", make_rule({"x": None, "y": 1})),
            [(0, "targets without a weight")],
            id="weights-half-given",
        ),
    ],
)
async def test_a_rule_that_does_less_than_it_seems_is_told_once(
    served: PoolWorld, rewrite: InferenceModelRewrite, problems: list[tuple[int, str]]
) -> None:
    with capture_logs() as logs:
        served.rewrites.upsert(rewrite)
        for _ in range(3):
            await served.reconcile_rewrites()

    told = [line for line in logs if line["log_level"] == "warning"]
    assert [line["rule"] for line in told] == [position for position, _ in problems]
    for line, (_, start) in zip(told, problems, strict=True):
        assert line["rewrite"] == "default/a"
        assert line["problem"].startswith(start)


ANY_REWRITE = st.builds(
    lambda name, target, pool, created, deleting: make_rewrite(
        name, make_rule(target, match=["food"]), pool=pool, created=created, deleting=deleting
    ),
    st.sampled_from("abc"),
    st.sampled_from(["t1", "t2"]),
    st.sampled_from(["pool", "q"]),
    st.integers(1, 3),
    st.booleans(),
)
EVENTS = st.lists(
    st.tuples(st.booleans(), st.sampled_from("abc") | ANY_REWRITE), min_size=1, max_size=10
)


@given(EVENTS)
async def test_what_counts_never_depends_on_the_order_of_events(
    events: list[tuple[bool, str | InferenceModelRewrite]],
) -> None:
    world, fresh = PoolWorld(), PoolWorld()
    await serve(world)

    for legacy, event in events:
        cache = world.legacy_rewrites if legacy else world.rewrites
        if isinstance(event, str):
            cache.delete(NamespacedName("default", event))
        else:
            cache.upsert(event)
        await world.reconcile_rewrites()

    fresh.rewrites.replace(world.rewrites.list())
    fresh.legacy_rewrites.replace(world.legacy_rewrites.list())
    await serve(fresh)
    assert world.rewritten("food") == fresh.rewritten("food")
    assert world.datastore.rewrite_list() == fresh.datastore.rewrite_list()


async def test_the_api_version_of_an_object_is_kept(served: PoolWorld) -> None:
    served.legacy_rewrites.upsert(make_rewrite("a", FOOD, api_version=LEGACY_API_VERSION))

    await served.reconcile_rewrites()

    [rewrite] = served.datastore.rewrite_list()
    assert rewrite.api_version == LEGACY_API_VERSION
