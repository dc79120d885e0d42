"""What readers of a decision can rely on: a step that decided nothing is not told, JSON is strict."""

import contextlib
import json
import random
from typing import Any

import numpy as np

from epp.backend.endpoint_table import EndpointTable, Mask
from epp.requestcontrol.decision_log import breakdown, explain
from epp.scheduling.framework import Cycle, TypedName
from epp.scheduling.pickers.random_picker import RandomPicker
from epp.scheduling.profile import SchedulerProfile
from epp.scheduling.profilehandlers.single_profile_handler import SingleProfileHandler
from epp.scheduling.scheduler import Scheduler
from epp.scheduling.types import Decision, FilterStep, InferenceRequest
from epp.testing.builders import P, make_table


class Undecided:
    """A filter whose first step fails and whose second keeps everybody, as nodes of a tree do."""

    typed_name = TypedName("undecided", "undecided")

    def filter(self, cycle: Cycle, _table: EndpointTable, candidates: Mask) -> Mask:
        nobody = np.zeros_like(candidates)
        cycle.steps.append(FilterStep("failing node", candidates, nobody, "nobody qualifies"))
        cycle.steps.append(FilterStep("lenient node", candidates, candidates, "all alike"))
        return candidates


def no_timer(_point: str, _name: TypedName) -> Any:
    return contextlib.nullcontext()


def decide(**profile: Any) -> Decision:
    table = make_table([P(known=False), P(1, 0.5), P(1, 0.5)])
    only = SchedulerProfile(name="default", picker=RandomPicker(), **profile)
    scheduler = Scheduler({"default": only}, SingleProfileHandler(), no_timer)
    request = InferenceRequest(request_id="r")
    return scheduler.schedule(request, table, table.all_rows(), random.Random(1))


def test_steps_that_decided_nothing_are_not_told() -> None:
    line = explain(decide(filters=[Undecided()]))

    assert "node" not in line
    assert line.endswith("random of 3")


def test_the_breakdown_tells_them_all_the_same() -> None:
    (profile,) = breakdown(decide(filters=[Undecided()]))["profiles"]

    assert [(step["name"], len(step["kept"])) for step in profile["filters"]] == [
        ("failing node", 0),
        ("lenient node", 3),
    ]


def test_the_breakdown_is_strict_json_also_where_an_age_is_unknown() -> None:
    text = json.dumps(breakdown(decide()), allow_nan=False)

    assert json.loads(text)["endpoints"]["pod-0-rank-0"]["age_seconds"] is None
