import random
from collections.abc import Sequence

import numpy as np
import orjson
import pytest
from msgspec.structs import replace
from prometheus_client import CollectorRegistry

from epp.backend.endpoint_table import EndpointTable
from epp.metrics.metrics import Metrics
from epp.requestcontrol.decision_log import DecisionLog, breakdown, explain
from epp.requestcontrol.types import IncomingRequest, RoutingDecision
from epp.scheduling.filters.low_latency import LowLatencyFilter, LowLatencySettings
from epp.scheduling.framework import Cycle, Filter, PluginObserver, TypedName
from epp.scheduling.pickers.max_score_picker import MaxScorePicker
from epp.scheduling.profile import SchedulerProfile, WeightedScorer
from epp.scheduling.profilehandlers.single_profile_handler import SingleProfileHandler
from epp.scheduling.scheduler import Scheduler
from epp.scheduling.types import Decision, InferenceRequest
from epp.testing.builders import P, PodLoad, make_table

OBSERVE: PluginObserver = Metrics(CollectorRegistry(), process_metrics=False).plugin_timer
SECRET = {"authorization": "Bearer s3cret"}
BODY = {"prompt": "x" * 1000}


class ByCache:
    """Scores the free share of the KV cache."""

    typed_name = TypedName("by-cache", "by-cache")

    def score(self, _cycle: Cycle, table: EndpointTable, _candidates: object) -> np.ndarray:
        return 1 - table.kv_usage


class Broken:
    """A filter with a defect."""

    typed_name = TypedName("broken", "broken")

    def filter(self, _cycle: object, _table: object, _candidates: object) -> np.ndarray:
        raise RuntimeError("defect")


def decide(
    pods: Sequence[PodLoad],
    *,
    filters: Sequence[Filter] = (),
    scorers: Sequence[WeightedScorer] = (),
    critical: bool = True,
) -> Decision:
    profile = SchedulerProfile(
        name="default",
        filters=filters or [LowLatencyFilter()],
        scorers=scorers,
        picker=MaxScorePicker(),
    )
    table = make_table(pods)
    request = InferenceRequest(
        request_id="r", model="m", target_model="sql", critical=critical, payload=BODY
    )
    scheduler = Scheduler({"default": profile}, SingleProfileHandler(), OBSERVE)
    return scheduler.schedule(request, table, table.all_rows(), random.Random(1))


def routing(decision: Decision, request_id: str = "r") -> RoutingDecision:
    return RoutingDecision(
        request=IncomingRequest(
            request_id=request_id, path="/v1/completions", headers=SECRET, payload=BODY
        ),
        target_model="sql",
        endpoint=decision.endpoints[0],
        targets=("10.0.0.1:8000",),
        decision=decision,
    )


SQL = P(0, 0.12, active={"sql"}, max_adapters=2, name="a")
BUSY = P(9, 0.5, active={"sql"}, max_adapters=2, name="b")
FULL = P(0, 0.0, active={"x", "y"}, max_adapters=2, name="c")


def test_the_line_tells_the_load_and_what_narrowed_the_choice() -> None:
    line = explain(decide([SQL, BUSY, FULL]))

    assert line == (
        "waiting 0, kv 12%; LoRA affinity (sql loaded): 2 of 3; least queue (waiting <= 4): 1 of 2"
    )


@pytest.mark.parametrize(
    ("decision", "want"),
    [
        pytest.param(decide([P()]), "the only endpoint", id="only-one"),
        pytest.param(decide([P(), P()]), "random of 2", id="tie"),
        pytest.param(decide([P(known=False)]), "never scraped", id="never-scraped"),
        pytest.param(decide([P(failing=True)]), "its scrapes fail", id="failing"),
        pytest.param(
            decide([P(0, 0.5), P(0, 0.5)], scorers=[WeightedScorer(scorer=ByCache(), weight=3)]),
            "score 1.50, max-score-picker of 2",
            id="scored",
        ),
        pytest.param(decide([P()], filters=[Broken()]), "broken failed", id="failed-plugin"),
        pytest.param(
            decide(
                [P(9)],
                filters=[LowLatencyFilter(LowLatencySettings(strict_v03=True))],
                critical=False,
            ),
            "nobody was left",
            id="dropped",
        ),
    ],
)
def test_what_the_line_tells_besides(decision: Decision, want: str) -> None:
    assert want in explain(decision)


def test_the_breakdown_has_every_number_and_is_json() -> None:
    decision = decide([SQL, BUSY, FULL], scorers=[WeightedScorer(scorer=ByCache(), weight=2)])

    tree = orjson.loads(orjson.dumps(breakdown(decision)))

    (profile,) = tree["profiles"]
    affinity = next(step for step in profile["filters"] if step["name"] == "LoRA affinity")
    assert tree["request"]["target_model"] == "sql"
    assert tree["candidates"] == ["a-rank-0", "b-rank-0", "c-rank-0"]
    assert tree["endpoints"]["b-rank-0"]["waiting"] == 9
    assert tree["endpoints"]["b-rank-0"]["age_seconds"] == pytest.approx(0.01)
    assert affinity["kept"] == ["a-rank-0", "b-rank-0"]
    assert affinity["dropped"] == ["c-rank-0"]
    assert profile["scorers"][0]["scores"] == {"a-rank-0": pytest.approx(0.88)}
    assert profile["totals"] == {"a-rank-0": pytest.approx(1.76)}
    assert profile["picks"] == ["a-rank-0"]


def test_the_breakdown_of_unknown_and_impossible_numbers_is_json() -> None:
    decision = decide([P(known=False), P(fresh=False), P()])
    columns = replace(decision.table.columns, waiting=np.array([np.nan, np.inf, 1.0]))
    odd = replace(decision, table=EndpointTable(columns, decision.table.taken_at))

    endpoints = orjson.loads(orjson.dumps(breakdown(odd)))["endpoints"]

    assert [pod["waiting"] for pod in endpoints.values()] == [None, None, 1]
    assert [pod["stale"] for pod in endpoints.values()] == [True, True, False]
    assert endpoints["pod-0-rank-0"]["age_seconds"] is None


def test_the_breakdown_names_plugins_that_failed() -> None:
    (profile,) = breakdown(decide([P()], filters=[Broken()]))["profiles"]

    assert profile["failures"] == [
        {"plugin": "broken", "at": "Filter", "error": "RuntimeError: defect"}
    ]


def test_the_ring_keeps_the_latest_newest_first() -> None:
    ring = DecisionLog(kept=3)
    decision = decide([P()])

    for number in range(5):
        ring.add(routing(decision, f"r{number}"))

    assert [r.request.request_id for r in ring.latest(10)] == ["r4", "r3", "r2"]
    assert [r.request.request_id for r in ring.latest(1)] == ["r4"]
    assert ring.find("r0") == []


def test_an_id_that_was_used_twice_is_found_twice() -> None:
    ring = DecisionLog()
    decision = decide([P()])

    ring.add(routing(decision, "same"))
    ring.add(routing(decision, "same"))

    assert len(ring.find("same")) == 2


def test_neither_prompts_nor_headers_are_kept() -> None:
    ring = DecisionLog()
    decision = decide([P()])

    ring.add(routing(decision))

    (kept,) = ring.latest(1)
    assert kept.request.payload == kept.request.headers == {}
    assert kept.decision.request.payload == kept.decision.request.headers == {}
    assert explain(kept.decision) == explain(decision)
    assert breakdown(kept.decision) == breakdown(decision)


def test_large_tables_are_kept_for_fewer_decisions() -> None:
    ring = DecisionLog(kept=100, max_rows=10)
    decision = decide([P(), P(), P()])

    for number in range(8):
        ring.add(routing(decision, f"r{number}"))

    assert [r.request.request_id for r in ring.latest(100)] == ["r7", "r6", "r5"]


def test_the_newest_decision_is_kept_whatever_its_table() -> None:
    ring = DecisionLog(max_rows=1)

    ring.add(routing(decide([P(), P(), P()])))

    assert len(ring) == 1
