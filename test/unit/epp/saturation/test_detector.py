import pytest

from epp.errors import ConfigError
from epp.saturation.detector import SaturationDetector, SaturationSettings
from epp.testing.builders import P, PodLoad, make_table


@pytest.mark.parametrize(
    ("pods", "want"),
    [
        pytest.param([P(5, 0.8)], False, id="limits-inclusive"),
        pytest.param([P(6, 0.1), P(0, 0.81)], True, id="both-limits-on-one-endpoint"),
        pytest.param([P(6, 0.1), P(5, 0.1)], False, id="one-is-enough"),
        pytest.param([P(0, 0.0, fresh=False)], True, id="stale-proves-nothing"),
        pytest.param([P(0, 0.0, known=False)], True, id="never-scraped-proves-nothing"),
        pytest.param([P(0, 0.0, failing=True)], True, id="failing-proves-nothing"),
        pytest.param([], True, id="no-endpoints"),
    ],
)
def test_saturated(pods: list[PodLoad], want: bool) -> None:
    table = make_table(pods)

    assert SaturationDetector().is_saturated(table, table.all_rows()) is want


def test_only_candidates_count() -> None:
    table = make_table([P(0, 0.0), P(9, 0.9)])

    assert SaturationDetector().is_saturated(table, table.mask_of([1]))
    assert SaturationDetector().is_saturated(table, table.mask_of([]))


@pytest.mark.parametrize(
    ("settings", "want"),
    [
        pytest.param(SaturationSettings(queue_depth=8), True, id="queue-below"),
        pytest.param(SaturationSettings(queue_depth=9), True, id="cache-still-too-full"),
        pytest.param(SaturationSettings(queue_depth=9, kv_usage=0.9), False, id="both-at-limit"),
    ],
)
def test_limits_are_settings(settings: SaturationSettings, want: bool) -> None:
    table = make_table([P(9, 0.9)])

    assert SaturationDetector(settings).is_saturated(table, table.all_rows()) is want


def test_staleness_is_lateness_against_the_endpoints_own_schedule() -> None:
    table = make_table([P(fresh=False)])  # due 9.95 seconds before the table was taken

    patient = SaturationDetector(SaturationSettings(staleness_seconds=9.96))
    strict = SaturationDetector(SaturationSettings(staleness_seconds=9.94))

    assert not patient.is_saturated(table, table.all_rows())
    assert strict.is_saturated(table, table.all_rows())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        pytest.param("queue_depth", -1, id="negative-queue"),
        pytest.param("kv_usage", 0, id="zero-cache"),
        pytest.param("kv_usage", 1.1, id="cache-above-one"),
        pytest.param("staleness_seconds", 0, id="zero-staleness"),
        pytest.param("staleness_seconds", float("nan"), id="staleness-is-nan"),
    ],
)
def test_settings_that_mean_nothing_are_refused_by_name(field: str, value: float) -> None:
    with pytest.raises(ConfigError, match=field):
        SaturationSettings(**{field: value})  # type: ignore[arg-type]  # on purpose
