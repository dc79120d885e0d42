"""The demo's table and the live view on terminals of several widths."""

import io

import pytest
from rich.console import Console

from epp.standalone import demo, live

WIDTHS = [pytest.param(width, id=f"{width}-columns") for width in (80, 100, 150)]
WHY = "waiting 0, kv 0%; LoRA affinity (support-r1 loaded (draw 0.405 < 0.999)): 1 of 4"


def rendered(what, width: int) -> str:
    sink = io.StringIO()
    Console(width=width, file=sink, force_terminal=False).print(what)
    text = sink.getvalue()
    assert all(len(line.rstrip()) <= width for line in text.splitlines())
    return text


def outcome(sample: demo.Sample, **changes) -> demo.Outcome:
    settings = {
        "status": sample.expected,
        "milliseconds": 123.4,
        "pod": "sim-1",
        "target_model": "support-r1",
        "why": WHY,
        "picked": True,
        **changes,
    }
    return demo.Outcome(sample=sample, **settings)


@pytest.mark.parametrize("width", WIDTHS)
def test_every_sample_is_readable_at_every_width(width):
    samples = demo.samples()

    text = rendered(demo.table_of([outcome(sample) for sample in samples], width), width)

    for sample in samples:
        (line,) = (
            line for line in text.splitlines() if line.strip().startswith(f"{sample.label} ")
        )
        assert line.split("  ")[0].strip() == sample.label
        for cell in (sample.model, "support-r1", "sim-1", str(int(sample.expected)), "123"):
            assert cell in line
    assert " ".join(text.split()).count(WHY) == len(samples)


def test_a_wide_terminal_has_the_reason_beside_its_request():
    text = rendered(demo.table_of([outcome(demo.samples()[0])], 150), 150)

    (line,) = (line for line in text.splitlines() if "sim-1" in line)
    assert line.rstrip().endswith(WHY)


@pytest.mark.parametrize(
    ("index", "changes", "good"),
    [
        pytest.param(0, {}, True, id="served-by-a-pick"),
        pytest.param(0, {"picked": False}, False, id="served-without-the-epp"),
        pytest.param(0, {"status": 503}, False, id="not-served"),
        pytest.param(0, {"status": 0}, False, id="no-answer"),
        pytest.param(0, {"status": 404}, False, id="refused"),
        pytest.param(-1, {"picked": False}, True, id="undeclared-model-refused"),
        pytest.param(-1, {"status": 200}, False, id="undeclared-model-served"),
    ],
)
def test_a_sample_that_did_not_get_what_it_should_is_named(index, changes, good):
    sample = demo.samples()[index]

    failures = demo.failures([outcome(sample, **changes)])

    assert len(failures) == (0 if good else 1)
    assert all(failure.startswith(f"{sample.label}: expected ") for failure in failures)


def view(**changes):
    endpoints = [
        {
            "name": f"demo-pod-number-{n}-rank-0",
            "address": f"127.0.1.{n}:8000",
            "waiting": 3.0,
            "running": 12.0,
            "kv_usage": 0.25,
            "in_flight": 15,
            "active_adapters": ["support-r1", "support-r2"],
            "known": n != 4,
            "failing": n == 3,
            "stale": n == 3,
            "age_seconds": None if n == 4 else 0.042,
        }
        for n in range(1, 5)
    ]
    decision = {
        "request_id": "0123456789abcdef",
        "model": "support",
        "target_model": "support-r1",
        "endpoint": "demo-pod-number-1-rank-0",
        "why": WHY,
    }
    return {
        "pool": {"namespace": "demo", "name": "demo", "failure_mode": None},
        "endpoints": endpoints,
        "decisions": [decision] * 8,
        "totals": {"routed": 7, "refused": 1, "without_epp": 2},
        "without_epp": 3,
        **changes,
    }


@pytest.mark.parametrize("width", WIDTHS)
def test_the_live_view_is_readable_at_every_width(width):
    text = rendered(live.screen(view(), "footer", width=width), width)

    flat = " ".join(text.split())
    for number in range(1, 5):
        row = next(line for line in text.splitlines() if f"demo-pod-number-{number}-" in line)
        assert {"3", "12", "25%", "15"} <= set(row.split())
    assert "never scraped" in text
    assert "failing, 42 ms" in text
    assert flat.count(WHY) == 8
    assert "3 without the EPP (Envoy's count)" in flat
    assert text.rstrip().endswith("footer")


def test_a_narrow_live_view_drops_addresses_before_adapters():
    rows = rendered(live.screen(view(decisions=[]), "", width=100), 100)

    assert "127.0.1.1:8000" not in rows
    assert "support-r1,support-r2" in rows


def test_a_low_screen_shows_fewer_decisions():
    text = rendered(live.screen(view(), "", width=80, height=24), 80)

    assert 0 < text.count("LoRA affinity") < 8
    assert len(text.splitlines()) < 24


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        pytest.param(None, "the EPP does not answer", id="no-answer"),
        pytest.param(view(pool=None), "no InferencePool yet", id="no-pool"),
        pytest.param(
            view(without_epp=0), "pool demo/demo: 2 of 4 endpoints healthy · 7 routed", id="pool"
        ),
    ],
)
def test_one_line_tells_how_the_pool_is(shown, text):
    line = live.summary_line(shown)

    assert text in line
    assert "without the EPP" not in line
