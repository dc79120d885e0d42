"""EndpointSeries: as a listener of the datastore, over real metrics."""

from prometheus_client import CollectorRegistry

from epp.backend.endpoint import Endpoint
from epp.metrics.endpoint_series import EndpointSeries
from epp.metrics.metrics import Metrics


def attempts_of(registry: CollectorRegistry) -> set[str]:
    return {
        sample.labels["endpoint_name"]
        for family in registry.collect()
        for sample in family.samples
        if sample.name == "llm_d_epp_scheduler_attempts_total"
    }


def test_only_removal_forgets_an_endpoint() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry, process_metrics=False)
    old, new = (
        Endpoint(namespace="d", pod_name="a", address=f"10.0.0.{i}", port=1) for i in (1, 2)
    )
    metrics.scheduler_run(0.1, True, endpoint_name=old.name, namespace="d", port=1)
    series = EndpointSeries(metrics)

    series.endpoint_added(old)
    series.endpoint_updated(old, new)
    before = attempts_of(registry)
    series.endpoint_removed(new)

    assert before == {"a-rank-0"}
    assert attempts_of(registry) == set()
