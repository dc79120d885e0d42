"""Microseconds per decision at 10, 100 and 1,000 endpoints: the latency tree, and four scorers.

Usage: bench_decide.py [--quick]. Half of the endpoints of the tree have the adapter that is asked
for, so that every node decides something. Compare ratios of one run, not numbers of two.
"""

import argparse
import contextlib
import random
import time
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from epp.backend.endpoint_table import EndpointTable, Floats, Mask
from epp.scheduling.filters.low_latency import LowLatencyFilter
from epp.scheduling.framework import Cycle, TypedName
from epp.scheduling.pickers.max_score_picker import MaxScorePicker
from epp.scheduling.pickers.random_picker import RandomPicker
from epp.scheduling.profile import SchedulerProfile, WeightedScorer
from epp.scheduling.profilehandlers.single_profile_handler import SingleProfileHandler
from epp.scheduling.scheduler import Scheduler
from epp.scheduling.types import InferenceRequest
from epp.testing.builders import P, make_table

BUDGET = {10: "-", 100: "60", 1000: "120"}


class ShortQueue:
    """A scorer of the usual cost: a column, its range, an array."""

    typed_name = TypedName("short-queue", "short-queue")

    def score(self, _cycle: Cycle, table: EndpointTable, candidates: Mask) -> Floats:
        """1 for the shortest queue among the candidates, 0 for the longest."""
        waiting = table.waiting
        among = waiting[candidates]
        low, high = float(among.min()), float(among.max())
        return (high - waiting) / max(1.0, high - low)


PROFILES = {
    "latency tree": SchedulerProfile(
        name="default", filters=[LowLatencyFilter()], picker=RandomPicker()
    ),
    "4 scorers": SchedulerProfile(
        name="default",
        scorers=[WeightedScorer(scorer=ShortQueue(), weight=1 + n) for n in range(4)],
        picker=MaxScorePicker(),
    ),
}


def no_timer(_point: object, _name: object) -> Any:
    """Observe nothing."""
    return contextlib.nullcontext()


def samples(profile: SchedulerProfile, endpoints: int, rounds: int) -> np.ndarray[Any, Any]:
    """Microseconds of each of ``rounds`` decisions on one table."""
    draw = random.Random(1)
    table = make_table(
        P(draw.randrange(9), draw.random(), active={"ad"} if n % 2 else (), max_adapters=4)
        for n in range(endpoints)
    )
    scheduler = Scheduler({"default": profile}, SingleProfileHandler(), no_timer)
    request = InferenceRequest(request_id="r", model="m", target_model="ad")
    everybody = table.all_rows()
    taken = np.empty(rounds)
    for number in range(rounds):
        began = time.perf_counter()
        scheduler.schedule(request, table, everybody, draw)
        taken[number] = (time.perf_counter() - began) * 1e6
    return taken


def main(argv: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="2,000 decisions instead of 20,000")
    rounds = 2_000 if parser.parse_args(argv).quick else 20_000
    table = Table(title="One decision, breakdown kept (µs)")
    for name in ("profile", "endpoints", "p50", "p99", "p50 / p50 at 10", "budget p50"):
        table.add_column(name, justify="right")
    for name, profile in PROFILES.items():
        base = 0.0
        for endpoints, budget in BUDGET.items():
            p50, p99 = np.percentile(samples(profile, endpoints, rounds), (50, 99))
            base = base or float(p50)
            ratio = f"{p50 / base:.2f}"
            table.add_row(name, str(endpoints), f"{p50:.0f}", f"{p99:.0f}", ratio, budget)
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
