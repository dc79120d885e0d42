"""Lines of a watch to events."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from epp.kube.decoding import Decoded, ObjectDecoder
from epp.kube.errors import ApiError, GoneError, ServerError, TooManyRequestsError
from epp.kube.resource import PODS
from epp.kube.selection import Selection
from epp.kube.watching import Bookmark, Changed, Deleted, Unknown, watch
from epp.testing.informer_world import decode_pod
from epp_api.core_v1 import Pod
from epp_api.meta import NamespacedName

KEY = NamespacedName("demo", "a")
META = {"name": "a", "namespace": "demo", "resourceVersion": "7"}


class Lines:
    """An API whose watch consists of these lines."""

    def __init__(self, *lines: bytes) -> None:
        self._lines = lines
        self.query: dict[str, str] = {}

    @asynccontextmanager
    async def lines(self, path: str, *, query, idle_seconds: float, what: str = ""):
        self.query = dict(query)

        async def generate() -> AsyncIterator[bytes]:
            for line in self._lines:
                yield line

        yield generate()


def line(kind: str, obj: object) -> bytes:
    return json.dumps({"type": kind, "object": obj}).encode()


async def events(*lines: bytes):
    decoder = ObjectDecoder("Pod", decode_pod)
    selection = Selection(resource=PODS, namespace="demo", label_selector="app=x")
    api = Lines(*lines)
    async with watch(api, selection, decoder, {"resourceVersion": "5"}, idle_seconds=9) as stream:  # type: ignore[arg-type]  # no requests here
        seen = [event async for event in stream]
    assert api.query == {
        "labelSelector": "app=x",
        "watch": "1",
        "allowWatchBookmarks": "true",
        "resourceVersion": "5",
    }
    return seen


@pytest.mark.parametrize("kind", ["ADDED", "MODIFIED"])
async def test_changes_carry_the_decoded_object(kind: str) -> None:
    (event,) = await events(line(kind, {"metadata": META}))

    assert isinstance(event, Changed)
    assert (event.decoded.key, event.decoded.resource_version) == (KEY, "7")


async def test_a_change_that_does_not_decode_keeps_its_identity() -> None:
    (event,) = await events(line("MODIFIED", {"metadata": META, "status": 5}))

    assert event == Changed(Decoded[Pod](KEY, "7", None))


@pytest.mark.parametrize(
    ("wire", "want"),
    [
        pytest.param(
            line("DELETED", {"metadata": META, "status": 5}),
            Deleted(KEY, "7"),
            id="deleted-even-if-broken",
        ),
        pytest.param(
            line("BOOKMARK", {"metadata": {"resourceVersion": "9"}}),
            Bookmark("9", ends_list=False),
            id="bookmark",
        ),
        pytest.param(
            line(
                "BOOKMARK",
                {
                    "metadata": {
                        "resourceVersion": "9",
                        "annotations": {"k8s.io/initial-events-end": "true"},
                    }
                },
            ),
            Bookmark("9", ends_list=True),
            id="end-of-a-streamed-list",
        ),
        pytest.param(line("EXPLODED", {"metadata": META}), Unknown("EXPLODED"), id="unknown-type"),
        pytest.param(line("ADDED", 5), Unknown("ADDED"), id="no-object"),
    ],
)
async def test_other_events(wire: bytes, want: object) -> None:
    assert await events(wire) == [want]


@pytest.mark.parametrize(
    ("wire", "want", "text"),
    [
        pytest.param(
            line("ERROR", {"code": 410, "message": "too old"}), GoneError, "too old", id="expired"
        ),
        pytest.param(
            line("ERROR", {"code": 429, "details": {"retryAfterSeconds": 3}}),
            TooManyRequestsError,
            "429",
            id="too-many",
        ),
        pytest.param(line("ERROR", {"code": "x"}), ServerError, "HTTP status 500", id="no-code"),
        pytest.param(line("ERROR", []), ServerError, "not an event", id="no-status"),
        pytest.param(b"nonsense", ServerError, "not an event", id="not-json"),
        pytest.param(b'{"type":"ADDED"}', ServerError, "not an event", id="no-object"),
        pytest.param(line("DELETED", 5), ServerError, "not an event", id="deleted-nothing"),
    ],
)
async def test_errors_name_the_watch(wire: bytes, want: type[ApiError], text: str) -> None:
    with pytest.raises(want, match=f"watch pods in namespace demo: .*{text}"):
        await events(wire)
