"""The live view: one screen of pool and latest decisions, or plain lines where there is no terminal.

Reads the EPP's debug views; an EPP that does not answer is shown as such, never an error.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from epp.errors import TransportError
from epp.standalone import local_http, narrow
from epp.standalone.plan import Plan
from epp.standalone.supervisor import Supervisor

REFRESH_SECONDS = 0.5
PLAIN_SECONDS = 5.0
SHOWN_DECISIONS = 8
MAX_ADAPTERS = 24
MAX_MODEL = 20
ID_SHOWN = 8


async def watch(supervisor: Supervisor, console: Console, stop: asyncio.Event) -> None:
    """Show the pool until ``stop`` is set."""
    if console.is_terminal:
        await _watch_screen(supervisor, console, stop)
    else:
        await _watch_lines(supervisor, console, stop)


async def _watch_screen(supervisor: Supervisor, console: Console, stop: asyncio.Event) -> None:
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while not stop.is_set():
            view = await _fetch(supervisor)
            shown = screen(view, footer(supervisor), width=console.width, height=console.height)
            live.update(shown, refresh=True)
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
        pool = await local_http.get_json(plan.epp_address, plan.metrics_port, "/debug/pool")
        path = f"/debug/decisions?limit={SHOWN_DECISIONS}"
        decisions = await local_http.get_json(plan.epp_address, plan.metrics_port, path)
    except TransportError:
        return None
    without = await supervisor.requests_without_epp() if plan.with_envoy else None
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
        parts.append(f"{view['without_epp']} without the EPP (Envoy's count)")
    return " · ".join(parts)


def where(plan: Plan) -> str:
    """Where requests go, in one line."""
    if plan.with_envoy:
        return f"OpenAI-compatible endpoint: {plan.url}"
    tls = "TLS" if plan.serve.secure else "plaintext HTTP/2"
    return (
        f"no Envoy: ext_proc on {plan.ext_proc} ({tls}), health on {plan.health_port}, metrics on"
        f" {plan.metrics_port}"
    )


def footer(supervisor: Supervisor) -> str:
    """Where to send requests, what was restarted, how to stop."""
    plan = supervisor.plan
    address = plan.url if plan.with_envoy else f"ext_proc on {plan.ext_proc}"
    restarts = [f"{c.spec.name} x{c.restarts}" for c in supervisor.children() if c.restarts]
    parts = [f"restarted: {', '.join(restarts)}"] if restarts else []
    return "   ".join([*parts, address, "Ctrl-C drains and stops"])


def screen(
    view: Mapping[str, Any] | None, footer_text: str, *, width: int, height: int = 50
) -> Group:
    """The whole screen, for a terminal of this size."""
    last = Text(footer_text, style="dim")
    if view is None or view["pool"] is None:
        return Group(Text(summary_line(view), style="yellow"), last)
    endpoints = [_endpoint_row(row) for row in view["endpoints"]]
    above: list[RenderableType] = [
        Text(summary_line(view), style="bold"),
        narrow.table(_ENDPOINT_COLUMNS, endpoints, width=width),
    ]
    rows = [_decision_row(decision) for decision in view["decisions"]]
    while rows:
        decisions = narrow.table(_DECISION_COLUMNS, rows, width=width, remark="why")
        whole = Group(*above, decisions, last)
        if _lines(whole, width) < height:
            return whole
        rows.pop()
    return Group(*above, last)


def _lines(shown: RenderableType, width: int) -> int:
    return len(Console(width=width).render_lines(shown))


_ENDPOINT_COLUMNS = (
    narrow.Column(name="endpoint"),
    narrow.Column(name="address", rank=2),
    narrow.Column(name="waiting", right=True),
    narrow.Column(name="running", right=True),
    narrow.Column(name="kv", right=True),
    narrow.Column(name="in flight", right=True),
    narrow.Column(name="adapters", rank=1),
    narrow.Column(name="age", right=True),
)
_DECISION_COLUMNS = (
    narrow.Column(name="latest", rank=2),
    narrow.Column(name="model"),
    narrow.Column(name="target", rank=1),
    narrow.Column(name="endpoint"),
)


def _endpoint_row(row: Mapping[str, Any]) -> narrow.Row:
    cells = (
        row["name"],
        row["address"],
        f"{row['waiting']:.0f}",
        f"{row['running']:.0f}",
        f"{row['kv_usage']:.0%}",
        str(row["in_flight"]),
        _shortened(",".join(row["active_adapters"]) or "-", MAX_ADAPTERS),
        _age(row),
    )
    return narrow.Row(cells=cells, style=_row_style(row))


def _decision_row(decision: Mapping[str, Any]) -> narrow.Row:
    cells = (
        decision["request_id"][:ID_SHOWN],
        _shortened(decision["model"] or "-", MAX_MODEL),
        _shortened(decision["target_model"] or "-", MAX_MODEL),
        decision["endpoint"],
    )
    return narrow.Row(cells=cells, remark=decision["why"])


def _age(row: Mapping[str, Any]) -> str:
    if not row["known"]:
        return "never scraped"
    age = f"{row['age_seconds'] * 1000:.0f} ms"
    return f"failing, {age}" if row["failing"] else age


def _row_style(row: Mapping[str, Any]) -> str:
    if row["failing"]:
        return "red"
    return "yellow" if row["stale"] else ""


def _shortened(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
