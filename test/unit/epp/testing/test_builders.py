import pytest

from epp.testing.builders import P, make_model, make_table
from epp.testing.fake_clock import FakeClock


def test_a_table_keeps_the_order_of_unnamed_pods() -> None:
    table = make_table(P(number) for number in range(12))

    assert list(table.waiting) == list(range(12))
    assert len(set(table.columns.row_of_target)) == 12


def test_a_pod_is_what_it_was_asked_to_be() -> None:
    pod = P(3, 0.2, running=4, active={"a"}, max_adapters=2, in_flight=5, name="vllm")

    table = make_table([pod])

    assert (table.waiting[0], table.running[0], table.kv_usage[0]) == (3.0, 4.0, 0.2)
    assert (table.in_flight[0], table.columns.max_adapters[0]) == (5, 2)
    assert table.endpoints[0].name == "vllm-rank-0"
    assert list(table.has_adapter("a")) == [True]


@pytest.mark.parametrize(
    ("created", "want"),
    [
        pytest.param(3661, "2025-03-01T01:01:01Z", id="seconds"),
        pytest.param("2025-01-01T00:00:00Z", "2025-01-01T00:00:00Z", id="text"),
        pytest.param(None, None, id="absent"),
    ],
)
def test_creation_of_a_model(created: str | int | None, want: str | None) -> None:
    assert make_model(created=created).metadata.creation_timestamp == want


def test_timers_fire_in_order_each_at_its_own_time() -> None:
    clock = FakeClock(now=0.0)
    fired: list[tuple[str, float]] = []
    clock.call_later(2.0, lambda: fired.append(("late", clock())))
    clock.call_later(1.0, lambda: fired.append(("early", clock())))
    clock.call_later(1.5, lambda: fired.append(("never", clock()))).cancel()
    clock.call_later(9.0, lambda: fired.append(("later", clock())))

    clock.advance(3.0)

    assert fired == [("early", 1.0), ("late", 2.0)]
    assert clock.time() == 3.0
    assert clock.pending == 1


def test_a_timer_may_set_another() -> None:
    clock = FakeClock(now=0.0)
    fired: list[float] = []

    def again() -> None:
        fired.append(clock())
        clock.call_later(1.0, again)

    clock.call_later(1.0, again)
    clock.advance(3.5)

    assert fired == [1.0, 2.0, 3.0]
