"""The demo's requests, sent through the gateway as a client would, and the table of what happened."""

import asyncio
import json
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from epp.errors import TransportError
from epp.standalone import local_http
from epp.standalone.demo_pool import BASE_MODEL
from epp.standalone.plan import Plan

SPLIT_REQUESTS = 10
SPLIT_GAP_SECONDS = 0.06
"""Longer than a scrape interval, shorter than a reply: a pick sees the load of those before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One request of the demo."""

    label: str
    path: str
    body: dict[str, Any]

    @property
    def model(self) -> str:
        """The model that the client asks for."""
        return str(self.body["model"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a sample.

    Attributes:
        sample: The request.
        status: HTTP status; 0 when there was no answer.
        milliseconds: Until the last byte.
        pod: Who served it, by the server's own word; empty when nobody did.
        target_model: The name that reached the pod; empty when none did.
        why: One line from the EPP; for a refusal, the error text.
    """

    sample: Sample
    status: int
    milliseconds: float
    pod: str
    target_model: str
    why: str


def samples() -> list[Sample]:
    """A handful of requests: chat, completion, streamed, a split, an undeclared model."""
    chat = {"messages": [{"role": "user", "content": "Who picks the pod?"}]}
    usage = {"stream": True, "stream_options": {"include_usage": True}}
    split = {"prompt": "My parcel is late.", "max_tokens": 32}
    return [
        _sample("chat", "chat/completions", {"model": BASE_MODEL, **chat, "max_tokens": 16}),
        _sample(
            "completion", "completions", {"model": BASE_MODEL, "prompt": "Once", "max_tokens": 12}
        ),
        _sample(
            "chat, streamed",
            "chat/completions",
            {"model": BASE_MODEL, **chat, **usage, "max_tokens": 24},
        ),
        *(
            _sample(f"split {n}/{SPLIT_REQUESTS}", "completions", {"model": "support", **split})
            for n in range(1, SPLIT_REQUESTS + 1)
        ),
        _sample(
            "sheddable",
            "completions",
            {"model": "nightly-eval", "prompt": "Grade this.", "max_tokens": 8},
        ),
        _sample("undeclared", "chat/completions", {"model": "gpt-nobody", **chat}),
    ]


async def run_samples(plan: Plan) -> list[Outcome]:
    """Send the samples in turn, those of the split overlapping, so that load shows in the picks."""
    chosen = samples()
    outcomes = [await _send(plan, sample) for sample in chosen[:3]]
    split = chosen[3:-2]
    waits = [number * SPLIT_GAP_SECONDS for number in range(len(split))]
    outcomes += await asyncio.gather(
        *(_send_after(wait, plan, sample) for wait, sample in zip(waits, split, strict=True))
    )
    outcomes += [await _send(plan, sample) for sample in chosen[-2:]]
    return outcomes


def table_of(outcomes: Sequence[Outcome]) -> Table:
    """The outcomes as a table for people."""
    title = "What the Endpoint Picker did"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column, options in _COLUMNS:
        table.add_column(column, **options)
    for outcome in outcomes:
        good = 200 <= outcome.status < 300
        table.add_row(
            outcome.sample.label,
            outcome.sample.model,
            outcome.target_model or "-",
            outcome.pod or "-",
            f"[green]{outcome.status}[/]" if good else f"[red]{outcome.status}[/]",
            f"{outcome.milliseconds:.0f}",
            outcome.why,
        )
    return table


_COLUMNS: Sequence[tuple[str, dict[str, Any]]] = (
    ("request", {"no_wrap": True}),
    ("model asked", {"no_wrap": True}),
    ("target model", {"no_wrap": True}),
    ("pod", {"no_wrap": True}),
    ("status", {"justify": "right"}),
    ("ms", {"justify": "right"}),
    ("why this pod", {"overflow": "fold", "min_width": 24}),
)


def print_snippets(console: Console, plan: Plan) -> None:
    """What to try next, ready to paste."""
    console.print(
        f"\n[bold]Try it[/] against {plan.url}\n\n"
        f"  curl -s {plan.url}/chat/completions -H 'content-type: application/json' \\\n"
        f'    -d \'{{"model": "{BASE_MODEL}", "messages": [{{"role": "user", "content": "Hi"}}]}}\'\n\n'
        "  from openai import OpenAI\n"
        f'  client = OpenAI(base_url="{plan.url}", api_key="none")\n'
        f'  print(client.completions.create(model="support", prompt="Hi").choices[0].text)\n\n'
        f"  curl -s http://127.0.0.1:{plan.metrics_port}/debug/decisions?limit=1   # why this pod\n"
        f"  curl -s http://127.0.0.1:{plan.metrics_port}/metrics                   # Prometheus\n",
        highlight=False,
        soft_wrap=True,
        markup=True,
    )


def _sample(label: str, path: str, body: dict[str, Any]) -> Sample:
    return Sample(label=label, path=f"/v1/{path}", body=body)


async def _send_after(seconds: float, plan: Plan, sample: Sample) -> Outcome:
    await asyncio.sleep(seconds)
    return await _send(plan, sample)


async def _send(plan: Plan, sample: Sample) -> Outcome:
    request_id = str(uuid.uuid4())
    headers = {"content-type": "application/json", "x-request-id": request_id}
    body = json.dumps(sample.body).encode()
    began = time.monotonic()
    try:
        reply = await local_http.request(
            plan.options.host, plan.port, "POST", sample.path, headers=headers, body=body
        )
    except TransportError as exc:
        return _outcome(sample, 0, began, why=str(exc))
    if reply.status != 200:
        return _outcome(sample, reply.status, began, why=_error_text(reply))
    decision = await _decision(plan, request_id)
    return _outcome(
        sample,
        reply.status,
        began,
        pod=reply.headers.get("x-sim-pod", ""),
        target_model=str(decision.get("target_model", "")),
        why=str(decision.get("why", "served without the EPP")),
    )


def _outcome(
    sample: Sample, status: int, began: float, *, pod: str = "", target_model: str = "", why: str
) -> Outcome:
    elapsed = (time.monotonic() - began) * 1000
    return Outcome(
        sample=sample,
        status=status,
        milliseconds=elapsed,
        pod=pod,
        target_model=target_model,
        why=why,
    )


async def _decision(plan: Plan, request_id: str) -> dict[str, Any]:
    path = f"/debug/decisions?request_id={request_id}"
    try:
        found = await local_http.get_json("127.0.0.1", plan.metrics_port, path)
    except TransportError:
        return {}
    return dict(found[0]) if found else {}


def _error_text(reply: local_http.Reply) -> str:
    try:
        return str(reply.json()["error"]["message"])
    except (TransportError, KeyError, TypeError):
        return reply.body.decode(errors="replace")[:200]
