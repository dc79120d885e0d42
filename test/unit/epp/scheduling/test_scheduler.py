import contextlib
import random
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from epp.scheduling.filters.low_latency import LowLatencyFilter
from epp.scheduling.framework import Cycle, TypedName
from epp.scheduling.pickers.random_picker import RandomPicker
from epp.scheduling.profile import SchedulerProfile
from epp.scheduling.profilehandlers.single_profile_handler import SingleProfileHandler
from epp.scheduling.scheduler import MAX_PROFILE_RUNS, Scheduler
from epp.scheduling.types import Decision, InferenceRequest, ProfileRunResult
from epp.testing.builders import P, make_table

TABLE = make_table([P(active={"ad"}, max_adapters=2), P(max_adapters=2), P(3, 0.5)])
REQUEST = InferenceRequest(request_id="r", target_model="ad")


class Handler:
    """Runs the profiles it is told, in order."""

    typed_name = TypedName("fake-handler", "fake")

    def __init__(self, names: Sequence[str], primary: str) -> None:
        self._names = list(names)
        self._primary = primary

    def next_profile(
        self, _cycle: Cycle, _profiles: Sequence[str], _results: Mapping[str, ProfileRunResult]
    ) -> str | None:
        return self._names.pop(0) if self._names else None

    def primary(self, _results: Mapping[str, ProfileRunResult]) -> str:
        return self._primary


def no_timer(_point: str, _name: TypedName) -> Any:
    return contextlib.nullcontext()


def profile(name: str) -> SchedulerProfile:
    return SchedulerProfile(name=name, filters=[LowLatencyFilter()], picker=RandomPicker())


def schedule(handler: Any, seed: int = 1) -> Decision:
    profiles = {"first": profile("first"), "second": profile("second")}
    scheduler = Scheduler(profiles, handler, no_timer)
    return scheduler.schedule(REQUEST, TABLE, TABLE.all_rows(), random.Random(seed))


def test_the_single_profile_handler_runs_the_first_profile_once() -> None:
    decision = schedule(SingleProfileHandler())

    assert [run.profile for run in decision.profiles] == ["first"]
    assert decision.primary == "first"


def test_each_profile_keeps_its_own_steps_and_the_primary_answers() -> None:
    decision = schedule(Handler(["first", "second"], "second"))

    assert [len(run.filters) for run in decision.profiles] == [5, 5]
    assert decision.result.profile == "second"
    assert decision.endpoints[0] == TABLE.endpoints[decision.result.picks[0]]


def test_equal_inputs_and_draws_give_equal_decisions() -> None:
    first, again = (schedule(SingleProfileHandler(), seed=5) for _ in range(2))

    assert first.result.picks == again.result.picks
    assert [s.note for s in first.result.filters] == [s.note for s in again.result.filters]


def test_an_unknown_profile_is_an_error_of_the_handler() -> None:
    with pytest.raises(KeyError, match="third"):
        schedule(Handler(["third"], "third"))


def test_a_handler_that_never_ends_is_ended() -> None:
    handler = Handler(["first"] * 100, "first")

    schedule(handler)

    assert len(handler._names) == 100 - MAX_PROFILE_RUNS


def test_a_primary_that_did_not_run_is_an_error_where_it_is_contained() -> None:
    with pytest.raises(LookupError):
        schedule(Handler(["first"], "second"))


def test_a_profile_is_found_by_its_result_whatever_key_it_has() -> None:
    scheduler = Scheduler({"key": profile("own-name")}, SingleProfileHandler(), no_timer)

    decision = scheduler.schedule(REQUEST, TABLE, TABLE.all_rows(), random.Random(1))

    assert decision.result.profile == "own-name"
    assert decision.endpoints
