"""Microseconds per decision of the latency tree, at 10, 100 and 1,000 endpoints.

Usage: bench_decide.py [--quick]
"""

import argparse
import contextlib
import random
import time
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from epp.scheduling.filters.low_latency import LowLatencyFilter
from epp.scheduling.pickers.random_picker import RandomPicker
from epp.scheduling.profile import SchedulerProfile
from epp.scheduling.profilehandlers.single_profile_handler import SingleProfileHandler
from epp.scheduling.scheduler import Scheduler
from epp.scheduling.types import InferenceRequest
from epp.testing.builders import P, make_table

BUDGET = {10: "-", 100: "60", 1000: "120"}


def no_timer(_point: object, _name: object) -> Any:
    """Observe nothing."""
    return contextlib.nullcontext()


def samples(endpoints: int, rounds: int) -> np.ndarray[Any, Any]:
    """Microseconds of each of ``rounds`` decisions on one table."""
    draw = random.Random(1)
    table = make_table(
        P(draw.randrange(9), draw.random(), max_adapters=4) for _ in range(endpoints)
    )
    profile = SchedulerProfile(name="default", filters=[LowLatencyFilter()], picker=RandomPicker())
    scheduler = Scheduler({"default": profile}, SingleProfileHandler(), no_timer)
    request = InferenceRequest(request_id="r", model="m", target_model="m")
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
    table = Table(title="Decision of the latency tree, breakdown kept (µs)")
    for name in ("endpoints", "p50", "p99", "p50 / p50 at 10", "budget p50"):
        table.add_column(name, justify="right")
    base = 0.0
    for endpoints, budget in BUDGET.items():
        taken = samples(endpoints, rounds)
        p50, p99 = np.percentile(taken, (50, 99))
        base = base or float(p50)
        table.add_row(str(endpoints), f"{p50:.0f}", f"{p99:.0f}", f"{p50 / base:.2f}", budget)
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
