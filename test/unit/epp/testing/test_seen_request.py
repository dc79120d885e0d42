import pytest
from aiohttp.test_utils import make_mocked_request

from epp.testing.seen_request import every_request, is_list, is_watch, seen_request

PODS = "/api/v1/namespaces/demo/pods"
MODELS = "/apis/inference.networking.x-k8s.io/v1alpha2/namespaces/demo/inferencemodels"


@pytest.mark.parametrize(
    ("path", "want"),
    [
        pytest.param(PODS, ("pods", "demo", ""), id="core-collection"),
        pytest.param(f"{PODS}/chat-0", ("pods", "demo", "chat-0"), id="object"),
        pytest.param(f"{PODS}/chat-0/status", ("pods", "demo", "chat-0"), id="subresource"),
        pytest.param("/api/v1/pods", ("pods", "", ""), id="all-namespaces"),
        pytest.param("/api/v1/namespaces", ("namespaces", "", ""), id="namespaces"),
        pytest.param("/api/v1/namespaces/demo", ("namespaces", "", "demo"), id="a-namespace"),
        pytest.param(MODELS, ("inferencemodels", "demo", ""), id="group"),
        pytest.param("/apis/coordination.k8s.io/v1", ("", "", ""), id="discovery"),
        pytest.param("/readyz", ("", "", ""), id="no-object"),
        pytest.param("/", ("", "", ""), id="root"),
    ],
)
def test_a_path_tells_resource_namespace_and_name(path, want):
    seen = seen_request(make_mocked_request("GET", path))

    assert (seen.resource, seen.namespace, seen.name) == want


@pytest.mark.parametrize(
    ("method", "path", "lists", "watches"),
    [
        pytest.param("GET", PODS, True, False, id="list"),
        pytest.param("GET", f"{PODS}?limit=250&continue=x", True, False, id="page"),
        pytest.param("GET", f"{PODS}?watch=true", False, True, id="watch"),
        pytest.param("GET", f"{PODS}?watch=1", False, True, id="watch-1"),
        pytest.param("GET", f"{PODS}?watch=false", True, False, id="no-watch"),
        pytest.param("GET", f"{PODS}/chat-0", False, False, id="get"),
        pytest.param("POST", PODS, False, False, id="create"),
        pytest.param("GET", "/apis", False, False, id="discovery"),
    ],
)
def test_lists_and_watches_are_told_apart(method, path, lists, watches):
    seen = seen_request(make_mocked_request(method, path))

    assert (is_list(seen), is_watch(seen), every_request(seen)) == (lists, watches, True)


@pytest.mark.parametrize(
    ("headers", "want"), [({"Authorization": "Bearer abc"}, "abc"), ({}, "")], ids=["token", "none"]
)
def test_the_token_is_recorded(headers, want):
    assert seen_request(make_mocked_request("GET", PODS, headers=headers)).token == want
