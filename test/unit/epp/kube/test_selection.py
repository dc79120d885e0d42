"""What a list or a watch asks for."""

from epp.kube.resource import PODS, TOKEN_REVIEWS
from epp.kube.selection import Selection


def test_query_has_only_selectors_that_are_set() -> None:
    selection = Selection(resource=PODS, namespace="demo", label_selector="app=x")

    assert selection.query(limit="5") == {"labelSelector": "app=x", "limit": "5"}
    assert selection.path == "/api/v1/namespaces/demo/pods"


def test_error_texts_name_verb_resource_and_namespace() -> None:
    assert Selection(resource=PODS, namespace="demo").what("list") == "list pods in namespace demo"
    everywhere = Selection(resource=TOKEN_REVIEWS).what("watch")
    assert everywhere == "watch tokenreviews.authentication.k8s.io in all namespaces"
