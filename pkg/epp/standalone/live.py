"""The live view: one screen of pool and latest decisions, or plain lines where there is no terminal.

Reads the EPP's debug views; an EPP that does not answer is shown as such, never an error.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from epp.errors import TransportError
from epp.standalone import local_http
from epp.standalone.supervisor import Supervisor, requests_without_epp

REFRESH_SECONDS = 0.5
PLAIN_SECONDS = 5.0
SHOWN_DECISIONS = 8


async def watch(supervisor: Supervisor, console: Console, stop: asyncio.Event) -> None:
    """Show the pool until ``stop`` is set."""
    if console.is_terminal:
        await _watch_screen(supervisor, console, stop)
    else:
        await _watch_lines(supervisor, console, stop)


async def _watch_screen(supervisor: Supervisor, console: Console, stop: asyncio.Event) -> None:
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while not stop.is_set():
            live.update(screen(await _fetch(supervisor), supervisor), refresh=True)
            await _wait(stop, REFRESH_SECONDS)


async def _watch_lines(supervisor: Supervisor, console: Console, stop: asyncio.Event) -> None:
    last = ""
    while not stop.is_set():
        line = summary_line(await _fetch(supervisor))
        if line != last:
            console.print(line, highlight=False, markup=False, soft_wrap=True)
            last = line
        await _wait(stop, PLAIN_SECONDS)


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return


async def _fetch(supervisor: Supervisor) -> dict[str, Any] | None:
    """Pool and decisions as the EPP reports them; None when it does not answer."""
    plan = supervisor.plan
    try:
        pool = await local_http.get_json("127.0.0.1", plan.metrics_port, "/debug/pool")
        path = f"/debug/decisions?limit={SHOWN_DECISIONS}"
        decisions = await local_http.get_json("127.0.0.1", plan.metrics_port, path)
    except TransportError:
        return None
    without = await requests_without_epp(plan.admin_port) if plan.with_envoy else None
    return {**pool, "decisions": decisions, "without_epp": without}


def summary_line(view: Mapping[str, Any] | None) -> str:
    """One plain line about the pool."""
    if view is None:
        return "the EPP does not answer; the gateway goes on without it"
    pool = view["pool"]
    if pool is None:
        return "no InferencePool yet"
    endpoints = view["endpoints"]
    healthy = sum(1 for e in endpoints if e["known"] and not e["failing"])
    totals = view["totals"]
    parts = [
        f"pool {pool['namespace']}/{pool['name']}: {healthy} of {len(endpoints)} endpoints healthy",
        f"{totals['routed']} routed",
        f"{totals['refused']} refused",
        f"{sum(e['in_flight'] for e in endpoints)} in flight",
    ]
    if view.get("without_epp"):
        parts.append(f"{view['without_epp']} without the EPP")
    return " · ".join(parts)


def screen(view: Mapping[str, Any] | None, supervisor: Supervisor) -> Group:
    """The whole screen."""
    restarts = [f"{c.spec.name} x{c.restarts}" for c in supervisor.children() if c.restarts]
    footer = f"{supervisor.plan.url}   Ctrl-C drains and stops"
    if restarts:
        footer = f"restarted: {', '.join(restarts)}   {footer}"
    if view is None or view["pool"] is None:
        return Group(Text(summary_line(view), style="yellow"), Text(footer, style="dim"))
    parts: list[RenderableType] = [
        Text(summary_line(view), style="bold"),
        _endpoint_table(view["endpoints"]),
    ]
    if view["decisions"]:
        parts.append(_decision_table(view["decisions"]))
    return Group(*parts, Text(footer, style="dim"))


def _endpoint_table(endpoints: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(expand=False)
    for name in ("endpoint", "address", "waiting", "running", "kv", "in flight", "adapters", "age"):
        numeric = name in {"waiting", "running", "kv", "in flight", "age"}
        table.add_column(name, justify="right" if numeric else "left", no_wrap=True)
    for row in endpoints:
        table.add_row(
            row["name"],
            row["address"],
            f"{row['waiting']:.0f}",
            f"{row['running']:.0f}",
            f"{row['kv_usage']:.0%}",
            str(row["in_flight"]),
            ",".join(row["active_adapters"]) or "-",
            _age(row),
            style=_row_style(row),
        )
    return table


def _age(row: Mapping[str, Any]) -> str:
    if not row["known"]:
        return "never scraped"
    age = f"{row['age_seconds'] * 1000:.0f} ms"
    return f"failing, {age}" if row["failing"] else age


def _row_style(row: Mapping[str, Any]) -> str:
    if row["failing"]:
        return "red"
    return "yellow" if row["stale"] else ""


def _decision_table(decisions: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(expand=False)
    for name in ("latest", "model", "target", "endpoint"):
        table.add_column(name, no_wrap=True)
    table.add_column("why", overflow="ellipsis", no_wrap=True)
    for decision in decisions:
        table.add_row(
            decision["request_id"][:8],
            decision["model"] or "-",
            decision["target_model"] or "-",
            decision["endpoint"],
            decision["why"],
        )
    return table
