"""Which kinds does a server serve."""

import pytest
from structlog.testing import capture_logs

from epp.kube.client import KubeClient
from epp.kube.discovery import first_served, serves
from epp.kube.errors import ForbiddenError, ServerError
from epp.kube.resource import PODS, Resource
from epp.testing.fake_kube import FakeKube
from epp.testing.fake_kube_faults import Refuse

OLD = Resource(group="old.example.com", version="v1alpha2", plural="widgets", kind="Widget")
NEW = Resource(group="example.com", version="v1", plural="widgets", kind="Widget")
OTHER = Resource(group="example.com", version="v1", plural="gadgets", kind="Gadget")


@pytest.fixture
async def kube():
    async with FakeKube([PODS, OLD]) as kube:
        yield kube


@pytest.fixture
async def client(kube):
    client = KubeClient(kube.settings())
    yield client
    await client.close()


@pytest.mark.parametrize(
    ("resource", "want"),
    [
        pytest.param(PODS, True, id="core"),
        pytest.param(OLD, True, id="group"),
        pytest.param(NEW, False, id="no-such-group"),
    ],
)
async def test_a_kind_is_served_or_not(client, resource: Resource, want: bool) -> None:
    assert await serves(client, resource) is want


async def test_another_kind_of_the_group_does_not_count(kube, client) -> None:
    kube.serve(OTHER)

    assert not await serves(client, NEW)


async def test_a_refusal_names_what_was_asked(kube, client) -> None:
    kube.faults.add(Refuse(status=403), verb="get")

    with pytest.raises(ForbiddenError, match=r"discover widgets.old.example.com v1alpha2"):
        await serves(client, OLD)


async def test_an_answer_that_is_no_list_is_an_error() -> None:
    class Nonsense:
        async def request(self, *_: object, **__: object) -> bytes:
            return b"<html>"

    with pytest.raises(ServerError, match="not a list of resources"):
        await serves(Nonsense(), PODS)  # type: ignore[arg-type]  # no watches here


async def test_the_first_candidate_wins_and_the_others_are_named(kube, client) -> None:
    assert await first_served(client, [NEW, OLD]) == OLD
    kube.serve(NEW)

    with capture_logs() as logs:
        assert await first_served(client, [NEW, OLD]) == NEW

    assert [(one["using"], one["ignored"]) for one in logs] == [
        ("example.com/v1", ["old.example.com/v1alpha2"])
    ]


async def test_no_candidate_is_none(client) -> None:
    assert await first_served(client, [NEW, OTHER]) is None
