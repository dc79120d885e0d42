"""Two API groups of one kind: which of them counts, and what an operator is told."""

from collections.abc import Sequence

import pytest
from structlog.testing import capture_logs

from epp.controller.pool_objects import PoolObjects
from epp.datastore.endpoint_pool import EndpointPool
from epp.kube.cache import ObjectCache
from epp.testing.builders import make_objective
from epp_api.meta import NamespacedName
from epp_api.v1alpha2.inferenceobjective_types import KIND, InferenceObjective

POOL = EndpointPool(namespace="default", name="pool", target_ports=(8000,))
IGNORED = "objects of the older API group are ignored"
ELSEWHERE = "object names the pool in another API group, ignored"


class Groups:
    """The objects of one kind in two API groups."""

    def __init__(
        self,
        preferred: Sequence[InferenceObjective] = (),
        legacy: Sequence[InferenceObjective] = (),
    ) -> None:
        self.preferred: ObjectCache[InferenceObjective] = ObjectCache(KIND)
        self.legacy: ObjectCache[InferenceObjective] = ObjectCache(KIND)
        self.preferred.replace(preferred)
        self.legacy.replace(legacy)
        self.objects = PoolObjects(KIND, self.preferred, self.legacy)

    def counting(self, pool: EndpointPool = POOL) -> list[str]:
        return [key.name for key in self.objects.counting(pool)]


A, B = make_objective("a"), make_objective("b")


@pytest.mark.parametrize(
    ("preferred", "legacy", "want"),
    [
        pytest.param([], [], [], id="none"),
        pytest.param([A], [], ["a"], id="preferred-alone"),
        pytest.param([], [B], ["b"], id="legacy-alone"),
        pytest.param([A], [B], ["a"], id="preferred-rules-legacy-out"),
        pytest.param([A], [A], ["a"], id="the-same-name-in-both"),
        pytest.param([make_objective("a", pool="q")], [B], ["b"], id="of-another-pool"),
        pytest.param([make_objective("a", deleting=True)], [B], ["b"], id="being-deleted"),
        pytest.param(
            [make_objective("a", namespace="other")], [B], ["b"], id="of-another-namespace"
        ),
        pytest.param(
            [make_objective("a", pool_group="inference.networking.x-k8s.io")],
            [B],
            ["b"],
            id="of-another-pool-group",
        ),
    ],
)
def test_the_older_group_counts_while_nothing_of_the_newer_does(
    preferred: list[InferenceObjective], legacy: list[InferenceObjective], want: list[str]
) -> None:
    assert Groups(preferred, legacy).counting() == want


def test_of_one_name_in_both_groups_the_newer_is_what_counts() -> None:
    new, old = make_objective("a", priority=1), make_objective("a", priority=2)

    counting = Groups([new], [old]).objects.counting(POOL)

    assert counting[new.metadata.key] is new


def test_the_groups_change_places_as_objects_come_and_go() -> None:
    groups = Groups(legacy=[B])
    seen = [groups.counting()]

    groups.preferred.upsert(A)
    seen.append(groups.counting())
    groups.preferred.delete(NamespacedName("default", "a"))
    seen.append(groups.counting())

    assert seen == [["b"], ["a"], ["b"]]


def test_that_the_older_group_is_ignored_is_told_once_until_it_changes() -> None:
    groups = Groups([A], [B])

    with capture_logs() as logs:
        groups.counting()
        groups.counting()
        groups.legacy.delete(B.metadata.key)
        groups.counting()
        groups.legacy.upsert(B)
        groups.counting()

    assert [line["event"] for line in logs] == [IGNORED, IGNORED]
    assert (logs[0]["log_level"], logs[0]["kind"], logs[0]["ignored"]) == ("warning", KIND, 1)


@pytest.mark.parametrize("legacy", [False, True])
def test_an_object_that_names_the_pool_in_another_group_is_told_once(legacy: bool) -> None:
    other = make_objective("a", pool_group="inference.networking.x-k8s.io")
    groups = Groups(legacy=[other]) if legacy else Groups([other])

    with capture_logs() as logs:
        groups.counting()
        groups.counting()

    (line,) = logs
    assert (line["event"], line["object"]) == (ELSEWHERE, "default/a")
    assert (line["group"], line["pool_group"]) == (
        "inference.networking.x-k8s.io",
        "inference.networking.k8s.io",
    )
