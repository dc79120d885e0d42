import pytest

from epp.datastore.endpoint_pool import EndpointPool, pool_from_v1, pool_from_v1alpha2
from epp.testing.builders import make_old_pool, make_pool
from epp_api.meta import NamespacedName, ObjectMeta
from epp_api.v1alpha2 import inferencepool_types as v1alpha2


def test_a_v1_pool_keeps_what_the_epp_needs() -> None:
    pool = pool_from_v1(
        make_pool(
            "chat",
            namespace="demo",
            selector={"app": "chat", "tier": "gpu"},
            ports=(8200, 8201),
            app_protocol="kubernetes.io/h2c",
            failure_mode="FailOpen",
        )
    )

    assert pool == EndpointPool(
        namespace="demo",
        name="chat",
        selector={"app": "chat", "tier": "gpu"},
        target_ports=(8200, 8201),
        app_protocol="kubernetes.io/h2c",
        failure_mode="FailOpen",
        group="inference.networking.k8s.io",
    )
    assert pool.key == NamespacedName("demo", "chat")


def test_a_v1alpha2_pool_has_one_port_and_speaks_http() -> None:
    pool = pool_from_v1alpha2(
        make_old_pool("chat", selector={"app": "chat"}, port=8200, failure_mode="FailClose")
    )

    assert pool == EndpointPool(
        namespace="default",
        name="chat",
        selector={"app": "chat"},
        target_ports=(8200,),
        app_protocol="http",
        failure_mode="FailClose",
        group="inference.networking.x-k8s.io",
    )


@pytest.mark.parametrize(
    "pool",
    [
        pytest.param(pool_from_v1(make_pool()), id="v1"),
        pytest.param(pool_from_v1alpha2(make_old_pool()), id="v1alpha2"),
    ],
)
def test_without_a_picker_reference_the_failure_mode_is_absent(pool: EndpointPool | None) -> None:
    assert pool is not None
    assert pool.failure_mode is None


def test_a_v1alpha2_pool_without_spec_is_no_pool() -> None:
    assert pool_from_v1alpha2(v1alpha2.InferencePool(metadata=ObjectMeta(name="pool"))) is None
