import pytest

from epp.kube.cache import ObjectEvent
from epp.kube.predicates import ByEvent, Predicate, everything, key_in, old_or_new
from epp.testing.builders import make_pod
from epp_api.core_v1 import Pod
from epp_api.meta import NamespacedName

KEY = NamespacedName("default", "pod-0")
OURS = make_pod(labels={"app": "x"})
FOREIGN = make_pod(labels={"app": "y"})


def is_ours(pod: Pod) -> bool:
    return pod.metadata.labels.get("app") == "x"


@pytest.mark.parametrize(
    ("old", "new", "want"),
    [
        pytest.param(None, OURS, True, id="created-ours"),
        pytest.param(None, FOREIGN, False, id="created-foreign"),
        pytest.param(OURS, None, True, id="deleted-ours"),
        pytest.param(FOREIGN, None, False, id="deleted-foreign"),
        pytest.param(OURS, OURS, True, id="updated-ours"),
        pytest.param(FOREIGN, FOREIGN, False, id="moves-between-foreign"),
        pytest.param(OURS, FOREIGN, True, id="leaves-us"),
        pytest.param(FOREIGN, OURS, True, id="comes-to-us"),
    ],
)
def test_old_or_new_lets_an_object_that_leaves_pass_once_more(
    old: Pod | None, new: Pod | None, want: bool
) -> None:
    assert old_or_new(is_ours)(ObjectEvent(KEY, old, new)) is want


@pytest.mark.parametrize(
    ("event", "want"),
    [
        pytest.param(ObjectEvent(KEY, None, OURS), ["create"], id="create"),
        pytest.param(ObjectEvent(KEY, OURS, FOREIGN), ["update"], id="update"),
        pytest.param(ObjectEvent(KEY, OURS, None), ["delete"], id="delete"),
    ],
)
def test_each_event_asks_its_own_question(event: ObjectEvent[Pod], want: list[str]) -> None:
    asked: list[str] = []

    def ask(name: str) -> bool:
        asked.append(name)
        return True

    predicate = ByEvent[Pod](
        create=lambda _: ask("create"),
        update=lambda _old, _new: ask("update"),
        delete=lambda _: ask("delete"),
    )

    assert predicate(event)
    assert asked == want


def test_key_in_passes_the_named_objects_only() -> None:
    predicate: Predicate[Pod] = key_in((KEY,))

    assert predicate(ObjectEvent(KEY, None, OURS))
    assert not predicate(ObjectEvent(NamespacedName("default", "other"), None, OURS))


def test_everything_passes() -> None:
    assert everything(ObjectEvent(KEY, None, FOREIGN))
