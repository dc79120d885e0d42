"""What happens between us and the API server, as metrics."""

from prometheus_client.registry import CollectorRegistry

from epp.metrics.families import SELECTABLE_NAME_SETS
from epp.metrics.kube_metrics import KubeMetrics


def test_known_kinds_start_at_zero_and_everything_is_counted() -> None:
    registry = CollectorRegistry()
    metrics = KubeMetrics(registry, SELECTABLE_NAME_SETS, kinds=["Pod", "InferencePool"])
    read = registry.get_sample_value

    before = read("epp_kube_relists_total", {"kind": "InferencePool"})
    metrics.relisted("Pod")
    metrics.watch_restarted("Pod")
    metrics.failed("Pod", "Forbidden")
    metrics.event_written()
    metrics.event_dropped("refused")

    assert before == 0
    assert read("epp_kube_relists_total", {"kind": "Pod"}) == 1
    assert read("epp_kube_watch_restarts_total", {"kind": "Pod"}) == 1
    assert read("epp_kube_errors_total", {"kind": "Pod", "reason": "Forbidden"}) == 1
    assert read("epp_kube_events_total", {"outcome": "written"}) == 1
    assert read("epp_kube_events_total", {"outcome": "refused"}) == 1


def test_leadership_is_read_when_scraped() -> None:
    registry, leads = CollectorRegistry(), [False]
    metrics = KubeMetrics(registry, SELECTABLE_NAME_SETS, kinds=[])
    metrics.observe_leader(lambda: leads[0])

    before = registry.get_sample_value("epp_leader")
    leads[0] = True

    assert (before, registry.get_sample_value("epp_leader")) == (0, 1)
