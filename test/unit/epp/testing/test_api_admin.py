"""What the administrator of tests waits for; against real API servers in test/integration/kube."""

from epp.testing.api_admin import ApiAdmin, identity

CRD = {
    **identity("apiextensions.k8s.io/v1", "CustomResourceDefinition", "widgets.example.com"),
    "spec": {
        "group": "example.com",
        "names": {"kind": "Widget", "plural": "widgets"},
        "versions": [{"name": "v1", "served": True}],
    },
}
ESTABLISHED = {"conditions": [{"type": "Established", "status": "True"}]}


class Answers(ApiAdmin):
    """Statuses of the CRD, one after another, as an API server that sets it up sends them."""

    def __init__(self, *statuses):
        super().__init__("http://none", "")
        self.left = list(statuses)

    async def request(self, method, path, **_more):
        if path.endswith("/customresourcedefinitions/widgets.example.com"):
            return {**CRD, "status": self.left.pop(0)}
        if path == "/apis/apiextensions.k8s.io/v1":
            names = {"name": "customresourcedefinitions", "namespaced": False}
            return {"resources": [{**names, "kind": "CustomResourceDefinition"}]}
        if path == "/apis/example.com/v1":
            return {"resources": [{"name": "widgets", "namespaced": True, "kind": "Widget"}]}
        return {"items": []} if method == "GET" else dict(CRD)


async def test_a_kind_is_waited_for_that_is_only_being_set_up():
    admin = Answers(None, {}, {"conditions": None}, {"conditions": []}, ESTABLISHED)

    await admin.apply([CRD])

    assert admin.left == []
