from structlog.testing import capture_logs

from epp.requestcontrol.faults import LOG_EVERY_SECONDS, MAX_REMEMBERED_FAULTS, FaultLog
from epp.testing.fake_clock import FakeClock


def test_the_same_fault_is_logged_once_a_minute() -> None:
    clock = FakeClock()
    faults = FaultLog(clock)

    with capture_logs() as logs:
        for seconds in (0, 1, LOG_EVERY_SECONDS - 1.5, 1):
            clock.advance(seconds)
            faults.say("plugin failed", error="boom", plugin="p")

    assert [line["event"] for line in logs] == ["plugin failed", "plugin failed"]
    assert logs[0]["plugin"] == "p"
    assert logs[0]["log_level"] == "error"


def test_other_plugins_and_events_have_their_own_minute() -> None:
    faults = FaultLog(FakeClock())

    with capture_logs() as logs:
        faults.say("plugin failed", error="boom", plugin="p")
        faults.say("plugin failed", error="boom", plugin="q")
        faults.say("hook failed", error="boom", plugin="p")

    assert len(logs) == 3


def test_what_is_remembered_is_bounded() -> None:
    faults = FaultLog(FakeClock())

    with capture_logs():
        for number in range(MAX_REMEMBERED_FAULTS * 2):
            faults.say("plugin failed", error="boom", plugin=str(number))

    assert len(faults._said) == MAX_REMEMBERED_FAULTS
