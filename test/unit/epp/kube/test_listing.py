"""Lists over several pages."""

import pytest

from epp.kube.client import KubeClient
from epp.kube.decoding import ObjectDecoder
from epp.kube.errors import GoneError, ServerError, TooManyRequestsError
from epp.kube.listing import list_all
from epp.kube.resource import PODS
from epp.kube.selection import Selection
from epp.testing.fake_kube import FakeKube
from epp.testing.fake_kube_faults import Refuse
from epp.testing.informer_world import decode_pod, pod_object

SELECTION = Selection(resource=PODS, namespace="demo", label_selector="app=x")


@pytest.fixture
async def kube():
    async with FakeKube() as kube:
        for number in range(7):
            kube.create(PODS, pod_object(f"p{number}"))
        kube.create(PODS, pod_object("other", app="y"))
        yield kube


@pytest.fixture
async def client(kube):
    client = KubeClient(kube.settings())
    yield client
    await client.close()


async def listed(client: KubeClient, limit: int = 3):
    decoder = ObjectDecoder("Pod", decode_pod)
    return await list_all(client, SELECTION, decoder, limit=limit, timeout_seconds=10)


async def test_pages_make_one_list(kube, client) -> None:
    listing = await listed(client)

    assert [one.key.name for one in listing.objects] == [f"p{number}" for number in range(7)]
    assert listing.resource_version == str(kube.version)
    assert [one.query.get("limit") for one in kube.requests] == ["3", "3", "3"]


async def test_an_expired_page_token_means_everything_at_once(kube, client) -> None:
    first = kube.faults.take
    kube.faults.take = lambda verb, plural: (
        kube.compact() if kube.count("list", PODS) == 2 else first(verb, plural)
    )

    listing = await listed(client)

    assert len(listing.objects) == 7
    assert [one.query.get("limit") for one in kube.requests] == ["3", "3", None]


async def test_an_expiry_without_a_token_is_an_error(kube, client) -> None:
    kube.faults.add(Refuse(status=410))

    with pytest.raises(GoneError, match="list pods in namespace demo"):
        await listed(client)


async def test_a_failing_page_fails_the_list(kube, client) -> None:
    kube.faults.add(Refuse(status=429, retry_after=3), verb="list")

    with pytest.raises(TooManyRequestsError) as caught:
        await listed(client)

    assert caught.value.retry_after == 3


async def test_a_broken_object_does_not_lose_the_page(kube, client) -> None:
    kube.patch(PODS, "demo", "p1", {"status": {"podIP": 5}})

    objects = (await listed(client)).objects

    assert [one.key.name for one in objects if one.value is None] == ["p1"]
    assert len(objects) == 7


async def test_an_answer_that_is_no_list_is_an_error() -> None:
    class Nonsense:
        async def request(self, *_: object, **__: object) -> bytes:
            return b"{}"

    with pytest.raises(ServerError, match=r"list pods in namespace demo: the answer is not a list"):
        await listed(Nonsense())  # type: ignore[arg-type]  # no watches here
