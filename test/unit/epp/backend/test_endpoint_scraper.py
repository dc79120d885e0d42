"""One endpoint's scrapes, driven by hand: a clock, timers and a fetcher that the test turns."""

import heapq
import itertools
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import pytest
import structlog

from epp.backend.endpoint import Endpoint
from epp.backend.endpoint_rows import EndpointRows
from epp.backend.endpoint_scraper import EndpointScraper
from epp.backend.live_columns import EndpointRow
from epp.backend.metrics_client import FetchListener
from epp.backend.providers.sglang import SGLANG
from epp.backend.providers.vllm import VLLM
from epp.backend.refresh_schedule import RefreshSchedule, RefreshSettings
from epp.backend.scrape_errors import ScrapeError, ScrapeFailure
from epp.backend.scrape_plan import ScrapeOutcome, ScrapePlan

POD = Endpoint(namespace="n", pod_name="pod", address="10.0.0.1", port=8000)
PAGE = (
    b"vllm:num_requests_waiting 7\nvllm:num_requests_running 3\nvllm:kv_cache_usage_perc 0.25\n"
    b'vllm:lora_requests_info{max_lora="1"} 1\n'
    b'vllm:cache_config_info{block_size="16",num_gpu_blocks="8"} 1\n'
)
PLAN = ScrapePlan(VLLM)


class Timer:
    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        self.callback = None


class Fetcher:
    """Remembers what was asked; the test answers."""

    def __init__(self, address: str, port: int, listener: FetchListener) -> None:
        self.address, self.port, self.listener = address, port, listener
        self.asked: list[str] = []
        self.open = True
        self.waiting = False

    def get(self, query: str) -> None:
        assert self.open and not self.waiting, "scrapes overlap"
        self.asked.append(query)
        self.waiting = True

    def close(self) -> None:
        self.open = self.waiting = False


class World:
    """A scraper and all that surrounds it."""

    def __init__(self, *, restricted: bool = False, port: int = 0, known: bool = True) -> None:
        self.now = 1000.0
        self.rows = EndpointRows()
        self.fetchers: list[Fetcher] = []
        self.failed: list[str] = []
        self.partial: list[str] = []
        self.port = port
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self.schedule = RefreshSchedule(
            RefreshSettings(), clock=lambda: self.now, random=Random(1), on_wake=lambda: None
        )
        self.scraper = EndpointScraper(
            POD,
            PLAN,
            rows=self.rows,
            schedule=self.schedule,
            fetchers=self,
            timers=self,
            clock=lambda: self.now,
            metrics=self,
            port_of=lambda endpoint: self.port or endpoint.port,
            restricted=restricted,
        )
        self.scraper.start()
        if known:
            self.rows.put(POD)

    # What the scraper uses

    def call_later(self, delay: float, callback: Callable[[], object], /) -> Timer:
        timer = Timer(callback)
        heapq.heappush(self._timers, (self.now + delay, next(self._order), timer))
        return timer

    def fetcher(self, address: str, port: int, listener: FetchListener) -> Fetcher:
        self.fetchers.append(Fetcher(address, port, listener))
        return self.fetchers[-1]

    def scrape_failed(self, reason: str) -> None:
        self.failed.append(str(reason))

    def scrape_partial(self, reason: str) -> None:
        self.partial.append(str(reason))

    # What the test turns

    @property
    def asked(self) -> list[str]:
        return self.fetchers[-1].asked

    @property
    def row(self) -> EndpointRow:
        row = self.rows.get(POD.key)
        assert row is not None
        return row

    @property
    def stale(self) -> bool:
        return bool(self.rows.snapshot(self.now).stale[0])

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while self._timers and self._timers[0][0] <= end:
            when, _, timer = heapq.heappop(self._timers)
            if timer.callback is not None:
                self.now = max(self.now, when)
                timer.callback()
        self.now = end

    def until_asked(self, within: float = 1.1) -> float:
        """Turn the clock until the next question; the seconds it took."""
        begin = self.now
        while not (self.fetchers and self.fetchers[-1].waiting):
            assert self.now - begin <= within, "nothing was asked"
            self.advance(0.001)
        return self.now - begin

    def answer(self, page: bytes = PAGE, *, took: float = 0.002) -> None:
        self.until_asked()
        self.advance(took)
        self.fetchers[-1].waiting = False
        self.fetchers[-1].listener.page_arrived(page)

    def fail(
        self, reason: ScrapeFailure = ScrapeFailure.TIMEOUT, *, status: int = 0, took: float = 0.0
    ) -> None:
        self.until_asked()
        self.advance(took)
        self.fetchers[-1].waiting = False
        error = ScrapeError("10.0.0.1:8000", reason, "because", status=status)
        self.fetchers[-1].listener.fetch_failed(error)


def test_the_first_scrape_starts_on_the_next_turn_and_not_before() -> None:
    world = World()

    assert not world.fetchers
    world.advance(0.0)

    assert world.fetchers[0].waiting


def test_a_page_is_published_with_the_time_of_the_next_one() -> None:
    world = World()

    world.answer(took=0.01)

    assert world.row.known
    assert world.row.state.waiting_requests == 7
    assert world.row.updated_at == world.now
    waited = world.until_asked()
    assert world.row.due_at == pytest.approx(world.row.updated_at + waited + 0.01, abs=0.002)


def test_an_idle_endpoint_on_the_slow_schedule_is_never_stale() -> None:
    world = World()
    for _ in range(4):
        world.answer()

        while not world.fetchers[-1].waiting:
            assert not world.stale
            world.advance(0.01)


def test_a_late_page_makes_the_row_stale_after_200_ms() -> None:
    world = World()
    world.answer()
    world.until_asked()

    world.advance(0.19)
    assert not world.stale
    world.advance(0.02)

    assert world.stale


def test_an_endpoint_with_requests_in_flight_is_scraped_at_the_set_interval() -> None:
    world = World()
    world.rows.add_in_flight(POD.key, 1)
    world.answer()
    begin = world.now

    for _ in range(20):
        world.answer()

    assert 20 * 0.044 <= world.now - begin <= 20 * 0.051


def test_a_request_brings_an_idle_endpoint_forward_without_making_it_stale() -> None:
    world = World()
    world.answer()
    world.answer()
    world.advance(0.3)

    world.schedule.request_arrived()
    world.scraper.wake(pool_size=1)

    assert not world.stale
    assert world.until_asked() <= 0.002
    world.advance(0.19)
    assert not world.stale
    world.answer()
    assert world.until_asked() <= 0.06


def test_waking_never_exceeds_the_refresh_interval() -> None:
    world = World()
    world.answer()
    world.answer(took=0.001)

    world.scraper.wake(pool_size=1)

    assert 0.045 <= world.until_asked() <= 0.051


def test_waking_during_a_scrape_starts_no_second_one() -> None:
    world = World()
    world.until_asked()

    world.scraper.wake(pool_size=1)
    world.advance(0.5)

    assert len(world.asked) == 1


def test_waking_does_not_hurry_a_failing_endpoint() -> None:
    world = World()
    world.fail()

    world.scraper.wake(pool_size=1)

    assert world.until_asked() >= 0.85


def test_a_failed_scrape_keeps_the_values_and_marks_the_row() -> None:
    world = World()
    world.answer()

    world.fail()

    assert world.row.failing
    assert world.stale
    assert world.row.state.waiting_requests == 7
    assert world.failed == ["timeout"]


def test_s7_a_status_changes_nothing_but_the_mark() -> None:
    world = World()
    world.answer()
    before = world.row.state, world.row.updated_at

    world.fail(ScrapeFailure.STATUS, status=503)

    assert (world.row.state, world.row.updated_at) == before
    assert world.failed == ["status"]


def test_failures_back_off_to_a_second_and_a_good_scrape_ends_it() -> None:
    world = World()
    world.rows.add_in_flight(POD.key, 1)
    world.answer()
    pauses = []

    for _ in range(7):
        world.fail()
        pauses.append(world.until_asked())
    world.answer()

    assert pauses[0] == pytest.approx(0.1, abs=0.012)
    assert all(0.89 <= pause <= 1.01 for pause in pauses[-2:])
    assert not world.row.failing
    assert world.until_asked() <= 0.051


def test_a_page_without_a_single_signal_is_a_failure() -> None:
    world = World()
    world.answer()

    world.answer(b"up 1\n")

    assert world.row.failing
    assert world.failed == ["no_signal"]


def test_partial_pages_are_published_and_counted() -> None:
    world = World()

    world.answer(b"vllm:num_requests_waiting 5\nvllm:num_requests_running x\n")

    assert world.row.state.waiting_requests == 5
    assert world.partial == ["malformed", "missing"]
    assert world.failed == []


def test_the_lack_of_lora_is_not_counted() -> None:
    world = World()

    world.answer(b"\n".join(line for line in PAGE.splitlines() if b"lora" not in line))

    assert world.partial == []


def test_a_fault_of_the_reader_is_contained_and_scraping_goes_on() -> None:
    class Broken(ScrapePlan):
        def apply(self, page: bytes, previous: Any) -> ScrapeOutcome:
            raise ZeroDivisionError("oops")

    world = World()
    world.scraper.update(POD, Broken(VLLM))

    world.answer()

    assert world.failed == ["internal"]
    world.until_asked()


def test_each_change_of_health_is_one_line() -> None:
    world = World()
    with structlog.testing.capture_logs() as logs:
        world.answer()
        for _ in range(3):
            world.fail()
        world.answer()
        world.fail()

    events = [entry["event"] for entry in logs if entry["log_level"] == "info"]
    assert events == [
        "endpoint scrape failing",
        "endpoint scrape recovered",
        "endpoint scrape failing",
    ]
    assert logs[0]["endpoint"] == "n/pod-rank-0"
    assert logs[0]["error"] == "because"


def test_a_closed_scraper_stores_and_asks_nothing_more() -> None:
    world = World()
    world.until_asked()

    world.scraper.close()
    world.scraper.close()
    world.advance(5.0)

    assert not world.fetchers[0].open
    assert len(world.asked) == 1
    assert not world.row.known


def test_s18_a_new_address_is_scraped_at_once_and_old_values_stay_till_then() -> None:
    world = World()
    world.answer()
    moved = replace(POD, address="10.0.0.2")

    world.rows.put(moved)
    world.scraper.update(moved, PLAN)

    assert not world.fetchers[0].open
    assert world.row.state.waiting_requests == 7
    assert world.until_asked() <= 0.001
    assert world.fetchers[-1].address == "10.0.0.2"
    world.answer(PAGE.replace(b" 7", b" 9"))
    assert world.row.state.waiting_requests == 9


def test_a_scrape_of_the_old_address_is_abandoned_by_a_move() -> None:
    world = World()
    world.until_asked()

    world.scraper.update(replace(POD, address="10.0.0.2"), PLAN)
    world.answer()

    assert [fetcher.open for fetcher in world.fetchers] == [False, True]


def test_s17_the_port_is_asked_for_on_every_scrape() -> None:
    world = World()
    world.answer()

    world.port = 9000
    world.answer()

    assert [fetcher.port for fetcher in world.fetchers] == [8000, 9000]
    assert not world.fetchers[0].open


def test_new_labels_alone_keep_connection_and_schedule() -> None:
    world = World()
    world.answer()

    world.scraper.update(replace(POD, labels={"a": "b"}), PLAN)
    world.answer()

    assert len(world.fetchers) == 1


def test_another_engine_is_read_with_its_own_plan() -> None:
    world = World()
    world.answer()

    world.scraper.update(POD, ScrapePlan(SGLANG))
    world.answer(b"sglang:num_queue_reqs 4\n")

    assert world.row.state.waiting_requests == 4


def test_a_connection_that_ends_between_scrapes_is_looked_into_at_once() -> None:
    world = World()
    world.answer()
    world.answer()

    world.scraper.connection_lost()

    assert world.until_asked() <= 0.001


def test_a_server_that_closes_every_connection_is_not_hurried_for_it() -> None:
    world = World()
    world.answer()
    world.answer()
    begin, asked = world.now, len(world.asked)

    while world.now - begin < 10.0:
        world.scraper.connection_lost()
        world.answer()

    assert len(world.asked) - asked <= 22


def test_results_that_come_before_the_row_are_repeated_when_it_is_there() -> None:
    world = World(known=False)
    world.answer()

    world.rows.put(POD)
    world.answer()

    assert world.row.known


def test_restricted_questions_are_the_rule() -> None:
    world = World(restricted=True)

    world.answer()
    world.answer()

    assert world.asked == [PLAN.query, PLAN.query]


def test_an_incomplete_answer_is_followed_by_the_full_page_in_the_same_scrape() -> None:
    world = World(restricted=True)
    world.answer(b"")

    assert world.until_asked() == 0.0
    world.answer()

    assert world.asked == [PLAN.query, ""]
    assert world.row.known
    assert world.failed == []


def test_a_server_that_hides_metrics_gets_full_pages_until_it_restarts() -> None:
    world = World(restricted=True)
    for _ in range(2):
        world.answer(b"")
        world.answer()
    for _ in range(2):
        world.answer()
    assert world.asked == [PLAN.query, "", PLAN.query, "", "", ""]

    world.fail(ScrapeFailure.CONNECT)
    world.answer()

    assert world.asked[-2:] == ["", PLAN.query]


def test_a_hanging_server_is_not_taken_for_a_restarted_one() -> None:
    world = World(restricted=True)
    for _ in range(2):
        world.answer(b"")
        world.answer()

    world.fail(ScrapeFailure.TIMEOUT)
    world.answer()

    assert world.asked[-1] == ""


def test_a_server_that_refuses_the_question_gets_full_pages() -> None:
    world = World(restricted=True)

    for _ in range(2):
        world.fail(ScrapeFailure.STATUS, status=400)
        world.answer()
    world.answer()

    assert world.asked == [PLAN.query, "", PLAN.query, "", ""]
    assert world.failed == []


def test_a_busy_server_is_not_asked_twice() -> None:
    world = World(restricted=True)

    world.fail(ScrapeFailure.STATUS, status=503)
    world.answer()

    assert world.asked == [PLAN.query, PLAN.query]
    assert world.failed == ["status"]
