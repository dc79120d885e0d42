"""The demo's requests, sent through the gateway as a client would, and the table of what happened."""

import asyncio
import json
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from rich.console import Console, RenderableType

from epp.errors import TransportError
from epp.standalone import local_http, narrow
from epp.standalone.demo_pool import BASE_MODEL
from epp.standalone.plan import Plan

SPLIT_REQUESTS = 10
SPLIT_GAP_SECONDS = 0.06
"""Longer than a scrape interval, shorter than a reply: a pick sees the load of those before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One request of the demo, and the status that it should get."""

    label: str
    path: str
    body: dict[str, Any]
    expected: int = HTTPStatus.OK

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
        picked: The EPP knows the request: it did not go without it.
    """

    sample: Sample
    status: int
    milliseconds: float
    pod: str
    target_model: str
    why: str
    picked: bool = False

    @property
    def as_expected(self) -> bool:
        """The status is the right one, and what was served was picked."""
        return self.status == self.sample.expected and (self.picked or self.status != HTTPStatus.OK)


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
        _sample(
            "undeclared",
            "chat/completions",
            {"model": "gpt-nobody", **chat},
            expected=HTTPStatus.NOT_FOUND,
        ),
    ]


async def run_samples(plan: Plan) -> list[Outcome]:
    """Send the samples in turn, those of the split overlapping, so that load shows in the picks."""
    chosen = samples()
    outcomes = [await _send(plan, sample) for sample in chosen[:3]]
    split = chosen[3:-2]
    waits = [number * SPLIT_GAP_SECONDS for number in range(len(split))]
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(_send_after(wait, plan, sample), name=f"sample {sample.label}")
            for wait, sample in zip(waits, split, strict=True)
        ]
    outcomes += [task.result() for task in tasks]
    outcomes += [await _send(plan, sample) for sample in chosen[-2:]]
    return outcomes


def table_of(outcomes: Sequence[Outcome], width: int) -> RenderableType:
    """The outcomes as a table for people, for a terminal of this width."""
    title = "What the Endpoint Picker did"
    rows = [_row(outcome) for outcome in outcomes]
    return narrow.table(_COLUMNS, rows, width=width, remark="why this pod", title=title)


_COLUMNS = (
    narrow.Column(name="request"),
    narrow.Column(name="model asked", rank=1),
    narrow.Column(name="target model", rank=2),
    narrow.Column(name="pod"),
    narrow.Column(name="status", right=True),
    narrow.Column(name="ms", right=True, rank=3),
)
_STATUS = 4


def _row(outcome: Outcome) -> narrow.Row:
    cells = (
        outcome.sample.label,
        outcome.sample.model,
        outcome.target_model or "-",
        outcome.pod or "-",
        str(outcome.status or "-"),
        f"{outcome.milliseconds:.0f}",
    )
    colour = "green" if 200 <= outcome.status < 300 else "red"
    return narrow.Row(cells=cells, remark=outcome.why, styles=[(_STATUS, colour)])


def failures(outcomes: Sequence[Outcome]) -> list[str]:
    """A line for each sample that did not get what it should: its status, and a pick with a 200."""
    return [
        f"{outcome.sample.label}: expected {_expectation(outcome.sample)}, got"
        f" {outcome.status or 'no answer'} ({outcome.why})"
        for outcome in outcomes
        if not outcome.as_expected
    ]


def _expectation(sample: Sample) -> str:
    return "200 by a pick" if sample.expected == HTTPStatus.OK else str(sample.expected)


def print_snippets(console: Console, plan: Plan) -> None:
    """What to try next, ready to paste."""
    console.print(
        f"\n[bold]Try it[/] against {plan.url}\n\n"
        f"  curl -s {plan.url}/chat/completions -H 'content-type: application/json' \\\n"
        f'    -d \'{{"model": "{BASE_MODEL}", "messages": [{{"role": "user", "content": "Hi"}}]}}\'\n\n'
        "  from openai import OpenAI\n"
        f'  client = OpenAI(base_url="{plan.url}", api_key="none")\n'
        f'  print(client.completions.create(model="support", prompt="Hi").choices[0].text)\n\n'
        f"  curl -s '{plan.debug_url('/debug/decisions?limit=1')}'   # why this pod\n"
        f"  curl -s {plan.debug_url('/metrics')}                     # Prometheus\n",
        highlight=False,
        soft_wrap=True,
        markup=True,
    )


def _sample(
    label: str, path: str, body: dict[str, Any], *, expected: int = HTTPStatus.OK
) -> Sample:
    return Sample(label=label, path=f"/v1/{path}", body=body, expected=expected)


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
            plan.client_address, plan.port, "POST", sample.path, headers=headers, body=body
        )
    except TransportError as exc:
        return _outcome(sample, 0, began, why=str(exc))
    if reply.status != HTTPStatus.OK:
        return _outcome(sample, reply.status, began, why=_error_text(reply))
    elapsed = (time.monotonic() - began) * 1000
    decision = await _decision(plan, request_id)
    return Outcome(
        sample=sample,
        status=reply.status,
        milliseconds=elapsed,
        pod=reply.headers.get("x-sim-pod", ""),
        target_model=str(decision.get("target_model", "")),
        why=str(decision.get("why", "served without the EPP")),
        picked=bool(decision),
    )


def _outcome(sample: Sample, status: int, began: float, *, why: str) -> Outcome:
    elapsed = (time.monotonic() - began) * 1000
    return Outcome(
        sample=sample, status=status, milliseconds=elapsed, pod="", target_model="", why=why
    )


async def _decision(plan: Plan, request_id: str) -> dict[str, Any]:
    path = f"/debug/decisions?request_id={request_id}"
    try:
        found = await local_http.get_json(plan.epp_address, plan.metrics_port, path)
    except TransportError:
        return {}
    return dict(found[0]) if found else {}


def _error_text(reply: local_http.Reply) -> str:
    try:
        return str(reply.json()["error"]["message"])
    except (TransportError, KeyError, TypeError):
        return reply.body.decode(errors="replace")[:200]
