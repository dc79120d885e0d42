"""Joining the gateway's log with our streams."""

import json
from typing import Any

import pytest
from google.protobuf import json_format

from epp.gen.envoy.data.accesslog.v3.accesslog_pb2 import HTTPAccessLogEntry
from epp.gen.envoy.service.accesslog.v3.als_pb2 import StreamAccessLogsMessage
from epp.handlers.access_log import (
    GRACE_SECONDS,
    HEAVY_BODY_BYTES,
    MAX_HEAVY_IDS,
    MAX_PER_ID,
    MAX_UNMATCHED,
    TTL_SECONDS,
    access_report,
)
from epp.handlers.server import ACCESS_LOG_METHOD
from epp.metrics.usage import TokenUsage
from epp.requestcontrol.types import AccessReport, CompletionCause
from epp.transport.stream import CloseReason, StatusCode

LEAN = (2, 0)
GATEWAY = (4, 4)


@pytest.fixture(scope="module")
def recorded(kit: Any) -> dict[str, HTTPAccessLogEntry]:
    entries = json.loads((kit.TESTDATA / "access-log-1.40.json").read_text())
    return {
        item["case"]: json_format.ParseDict(item["entry"], HTTPAccessLogEntry()) for item in entries
    }


def entry(
    driver: Any,
    request_id: Any = "id-1",
    *,
    tokens: Any = 7,
    age: Any = 0.0,
    address: Any = "10.0.0.5",
    picked: Any = False,
) -> HTTPAccessLogEntry:
    """A log entry of a request that started ``age`` seconds ago."""
    message = HTTPAccessLogEntry()
    message.request.request_id = request_id
    message.response.response_code.value = 200
    common = message.common_properties
    started = driver.clock() + 1e6 - age
    common.start_time.seconds = int(started)
    common.start_time.nanos = int((started % 1) * 1e9)
    if address:
        common.upstream_remote_address.socket_address.address = address
        common.upstream_remote_address.socket_address.port_value = 8000
    usage = common.metadata.filter_metadata["epp.usage"].fields
    usage["prompt_tokens"].number_value = tokens
    if picked:
        message.request.request_headers["x-gateway-destination-endpoint"] = "10.0.0.5:8000"
    return message


def report(driver: Any, *entries: Any) -> None:
    """Send entries as a gateway does."""
    message = StreamAccessLogsMessage()
    message.http_logs.log_entry.extend(entries)
    sender_type = type(driver.open()[1])
    handler = driver.services[ACCESS_LOG_METHOD](sender_type())
    handler.on_message(message.SerializeToString())


def begin(kit: Any, driver: Any, modes: Any = LEAN, **headers: Any) -> Any:
    """Route a request; return its stream."""
    handler, _ = driver.talk(kit.headers(modes=modes, **headers), kit.body())
    handler.on_message(kit.response_headers().SerializeToString())
    return handler


def told(driver: Any) -> list[tuple[str | None, int | None]]:
    """Reports as (request id or None, prompt tokens)."""
    return [
        (routing and routing.request.request_id, report.usage and report.usage.prompt_tokens)
        for routing, report in driver.director.reports
    ]


@pytest.mark.parametrize(
    ("case", "served_by", "status", "size", "usage"),
    [
        pytest.param(
            "json reply",
            "10.0.0.5:8000",
            200,
            57,
            TokenUsage(prompt_tokens=3, completion_tokens=4),
            id="json",
        ),
        pytest.param(
            "event stream",
            "10.0.0.5:8000",
            200,
            213,
            TokenUsage(prompt_tokens=7, completion_tokens=5),
            id="event-stream",
        ),
        pytest.param(
            "client aborts before the response", "10.0.0.5:8000", 0, 0, None, id="aborted"
        ),
        pytest.param("refused by us", "", 400, 184, None, id="refused"),
    ],
)
def test_recorded_entries_are_translated(
    recorded: Any, case: str, served_by: str, status: int, size: int, usage: Any
) -> None:
    found = access_report(recorded[case])

    assert (found.served_by, found.status, found.response_bytes) == (served_by, status, size)
    assert found.usage == usage
    assert (found.first_byte_seconds is None) is (status == 0)
    assert 0 < found.duration_seconds < 1


def test_an_aborted_request_lasts_as_long_as_the_gateway_says(recorded: Any) -> None:
    found = access_report(recorded["client aborts before the response"])

    assert found.duration_seconds == pytest.approx(0.25, abs=0.01)


def test_an_ipv6_address_gets_brackets(kit: Any) -> None:
    driver = kit.Driver()

    assert access_report(entry(driver, address="fd00::1")).served_by == "[fd00::1]:8000"


def test_an_entry_after_the_end_of_the_stream_is_joined(kit: Any) -> None:
    driver = kit.Driver()
    handler = begin(kit, driver)
    handler.on_half_close()
    driver.clock.advance(0.02)

    report(driver, entry(driver, age=0.02))

    assert told(driver) == [("id-1", 7)]


def test_an_entry_before_the_end_of_the_stream_waits_for_the_completion(kit: Any) -> None:
    driver = kit.Driver()
    handler = begin(kit, driver)

    report(driver, entry(driver))
    before = told(driver)
    handler.on_half_close()

    assert before == []
    assert told(driver) == [("id-1", 7)]
    assert driver.director.completed[0][1].cause is CompletionCause.NATURAL


def test_what_passed_through_the_stream_is_not_reported_again(kit: Any) -> None:
    driver = kit.Driver()
    handler = begin(kit, driver, GATEWAY)
    handler.on_message(kit.response_body(end=True).SerializeToString())

    report(driver, entry(driver))
    driver.clock.advance(60)

    assert told(driver) == []


def test_an_id_used_twice_is_joined_by_start_time(kit: Any) -> None:
    driver = kit.Driver()
    first = begin(kit, driver)
    driver.clock.advance(0.5)
    second = begin(kit, driver)
    for handler in (second, first):
        handler.on_half_close()

    report(driver, entry(driver, age=0.0, tokens=2), entry(driver, age=0.5, tokens=1))

    pairs = [
        (routing.request.received_at, given.usage.prompt_tokens)
        for routing, given in driver.director.reports
    ]
    assert pairs == [(1000.5, 2), (1000.0, 1)]


def test_two_requests_of_one_id_at_one_time_lose_usage_but_never_accounting(kit: Any) -> None:
    driver = kit.Driver()
    for handler in [begin(kit, driver), begin(kit, driver)]:
        handler.on_half_close()

    report(driver, entry(driver), entry(driver))
    driver.clock.advance(60)

    assert len(driver.director.completed) == 2
    assert len(told(driver)) <= 1
    assert None not in [request_id for request_id, _ in told(driver)]


def test_an_entry_of_nobody_counts_after_the_grace_time(kit: Any) -> None:
    driver = kit.Driver()

    report(driver, entry(driver, "other"))
    before = told(driver)
    driver.clock.advance(GRACE_SECONDS)

    assert before == []
    assert told(driver) == [(None, 7)]


def test_an_entry_that_overtook_its_stream_is_joined_within_the_grace_time(kit: Any) -> None:
    driver = kit.Driver()
    report(driver, entry(driver))
    driver.clock.advance(GRACE_SECONDS / 2)
    begin(kit, driver).on_half_close()

    driver.clock.advance(GRACE_SECONDS)

    assert told(driver) == [("id-1", 7)]


def test_entries_that_come_one_after_another_each_have_their_grace_time(kit: Any) -> None:
    driver = kit.Driver()
    report(driver, entry(driver, "a", tokens=1))
    driver.clock.advance(GRACE_SECONDS / 2)
    report(driver, entry(driver, "b", tokens=2))

    driver.clock.advance(GRACE_SECONDS / 2)
    first = told(driver)
    driver.clock.advance(GRACE_SECONDS / 2)

    assert first == [(None, 1)]
    assert told(driver) == [(None, 1), (None, 2)]
    assert driver.clock.pending == 0


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(lambda driver: entry(driver, address=""), id="no-upstream-was-reached"),
        pytest.param(lambda driver: entry(driver, picked=True), id="another-epp-picked"),
        pytest.param(lambda driver: flagged(driver, "no_healthy_upstream"), id="no-healthy"),
        pytest.param(lambda driver: flagged(driver, "upstream_connection_failure"), id="connect"),
        pytest.param(lambda driver: flagged(driver, "upstream_overflow"), id="overflow"),
        pytest.param(lambda driver: intermediate(driver), id="request-still-runs"),
    ],
)
def test_what_did_not_bypass_us_is_not_counted(kit: Any, case: Any) -> None:
    driver = kit.Driver()

    report(driver, case(driver))
    driver.clock.advance(60)

    assert told(driver) == []


def flagged(driver: Any, name: Any) -> HTTPAccessLogEntry:
    message = entry(driver)
    setattr(message.common_properties.response_flags, name, True)
    return message


def intermediate(driver: Any) -> HTTPAccessLogEntry:
    message = entry(driver)
    message.common_properties.intermediate_log_entry = True
    return message


def test_recorded_entries_tell_who_bypassed_us(kit: Any, recorded: Any) -> None:
    driver = kit.Driver()

    report(driver, *recorded.values())
    driver.clock.advance(60)

    bypassed = [given.request_id for _, given in driver.director.reports]
    assert bypassed == [recorded["served without the EPP"].request.request_id]


def test_a_start_time_far_off_is_another_request(kit: Any) -> None:
    driver = kit.Driver()
    begin(kit, driver).on_half_close()

    report(driver, entry(driver, age=300.0))
    driver.clock.advance(GRACE_SECONDS)

    assert told(driver) == [(None, 7)]


def test_a_finished_request_is_forgotten_after_a_while(kit: Any) -> None:
    driver = kit.Driver()
    begin(kit, driver).on_half_close()
    driver.clock.advance(TTL_SECONDS + 1)

    report(driver, entry(driver, age=TTL_SECONDS + 1))
    driver.clock.advance(GRACE_SECONDS)

    assert told(driver) == [(None, 7)]


def test_an_id_is_remembered_from_its_last_request_on(kit: Any) -> None:
    driver = kit.Driver()
    begin(kit, driver, x_request_id="often").on_half_close()
    begin(kit, driver, x_request_id="once").on_half_close()
    driver.clock.advance(TTL_SECONDS - 1)
    begin(kit, driver, x_request_id="often").on_half_close()
    driver.clock.advance(2)

    begin(kit, driver, x_request_id="new").on_half_close()

    assert list(driver.access_log._finished) == ["often", "new"]


def test_nothing_is_kept_of_what_passed_through_the_stream(kit: Any) -> None:
    driver = kit.Driver()
    handler = begin(kit, driver, GATEWAY)

    handler.on_message(kit.response_body(end=True).SerializeToString())

    ((expected,),) = driver.access_log._finished.values()
    assert expected.routing is None


def test_a_remembered_request_with_a_large_body_loses_it(kit: Any) -> None:
    driver = kit.Driver()
    data = b'{"model":"m","prompt":"%s"}' % (b"x" * HEAVY_BODY_BYTES)
    handler, _ = driver.talk(kit.headers(modes=LEAN), kit.body(data), kit.response_headers())
    handler.on_half_close()

    report(driver, entry(driver))

    ((routing, _),) = driver.director.reports
    assert routing.request.payload == routing.decision.request.payload == {}
    assert routing.request.headers == {}
    assert routing.request.size_bytes == len(data)
    assert routing.targets == driver.director.routed[0].targets


def test_few_requests_are_remembered_whole(kit: Any) -> None:
    driver = kit.Driver()

    for index in range(2 * MAX_HEAVY_IDS):
        begin(kit, driver, x_request_id=f"id-{index}").on_half_close()

    whole = [
        expected
        for remembered in driver.access_log._finished.values()
        for expected in remembered
        if expected.routing.request.payload
    ]
    assert len(whole) == MAX_HEAVY_IDS


def test_memory_is_bounded(kit: Any) -> None:
    driver = kit.Driver()
    for _ in range(MAX_PER_ID + 10):
        begin(kit, driver).on_half_close()
    report(driver, *(entry(driver, f"x{index}") for index in range(MAX_UNMATCHED + 5)))

    assert len(driver.access_log._finished["id-1"]) == MAX_PER_ID
    assert len(driver.access_log._unmatched) == MAX_UNMATCHED
    assert len(told(driver)) == 5


def test_a_fault_of_the_director_does_not_lose_other_entries(kit: Any) -> None:
    driver = kit.Driver()
    for request_id in ("a", "b"):
        begin(kit, driver, x_request_id=request_id).on_half_close()
    seen = []

    def faulty(routing: Any, given: Any) -> None:
        seen.append(given.request_id)
        raise ZeroDivisionError

    driver.director.handle_access_report = faulty
    report(driver, entry(driver, "a"), entry(driver, "b"))

    assert seen == ["a", "b"]


def test_a_log_stream_ends_with_the_gateway(kit: Any) -> None:
    driver = kit.Driver()
    sender = kit.FakeSender()
    handler = driver.services[ACCESS_LOG_METHOD](sender)

    handler.on_half_close()
    handler.on_closed(CloseReason.FINISHED)

    assert sender.finished == (StatusCode.OK, "")


def test_bytes_that_are_no_entries_end_the_log_stream(kit: Any) -> None:
    driver = kit.Driver()
    sender = kit.FakeSender()

    driver.services[ACCESS_LOG_METHOD](sender).on_message(b"\xff\xff")

    assert sender.finished[0] is StatusCode.INVALID_ARGUMENT


def test_usage_that_is_no_count_is_ignored(kit: Any) -> None:
    message = entry(kit.Driver(), tokens=float("nan"))

    assert access_report(message).usage is None
    assert isinstance(access_report(message), AccessReport)
