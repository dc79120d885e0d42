from epp.sources.caches import SourceCaches
from epp.sources.kinds import TYPES
from epp.testing.builders import make_model, make_old_pool, make_pool
from epp_api.v1alpha2.inferencemodel_types import MODEL_NAME_INDEX
from epp_api.v1alpha2.shared_types import API_VERSION, LEGACY_API_VERSION


def test_there_is_a_cache_for_every_kind_that_is_read() -> None:
    assert set(SourceCaches().by_type) == set(TYPES)


def test_every_cache_is_marked_synced_at_once() -> None:
    caches = SourceCaches()
    before = [cache.has_synced for cache in caches.by_type.values()]

    caches.mark_synced()

    assert not any(before)
    assert all(cache.has_synced for cache in caches.by_type.values())


def test_models_are_found_by_model_name() -> None:
    caches = SourceCaches()
    caches.models.upsert(make_model("one", model_name="food"))
    caches.models.upsert(make_model("two", model_name="food"))
    caches.models.upsert(make_model("three", model_name="drink"))

    found = caches.models.by_index(MODEL_NAME_INDEX, "food")

    assert [model.metadata.name for model in found] == ["one", "two"]


def test_pool_keys_are_sorted_and_name_a_pool_of_both_versions_once() -> None:
    caches = SourceCaches()
    caches.pools_v1.upsert(make_pool("b"))
    caches.pools_v1.upsert(make_pool("c"))
    caches.pools_v1alpha2.upsert(make_old_pool("b"))
    caches.pools_v1alpha2.upsert(make_old_pool("a"))

    assert [key.name for key in caches.pool_keys()] == ["a", "b", "c"]


def test_the_two_groups_of_a_kind_have_caches_of_their_own() -> None:
    caches = SourceCaches()

    for kind, preferred, legacy in (
        ("InferenceObjective", caches.objectives, caches.legacy_objectives),
        ("InferenceModelRewrite", caches.rewrites, caches.legacy_rewrites),
    ):
        assert caches.by_type[API_VERSION, kind] is preferred
        assert caches.by_type[LEGACY_API_VERSION, kind] is legacy
