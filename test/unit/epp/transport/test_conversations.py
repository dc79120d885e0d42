"""Twins: any conversation means the same to handlers and peers on both transports.

grpc.aio is the oracle. Conversations are generated (messages, half-closes, resets, deadlines,
answers from outside, in any order and any split into reads) and recorded ones are played. The
client is the HTTP/2 engine, driven by hand, so that nothing of a client library smooths the edges.
"""

import asyncio
import base64
import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ngh2
import pytest
import uvloop
from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st

from epp.gen.envoy.service.ext_proc.v3.external_processor_pb2 import (
    ProcessingRequest,
    ProcessingResponse,
)
from epp.testing import raw_http2 as raw
from epp.testing.raw_http2 import GRPC_HEADERS, message
from epp.transport.grpc_framing import Deframer
from epp.transport.grpcio_server import GrpcioServer
from epp.transport.http2 import Http2Error
from epp.transport.limits import TransportLimits
from epp.transport.native_connection import NativeConnection
from epp.transport.native_server import NativeServer
from epp.transport.stats import TransportStats
from epp.transport.stream import CloseReason, StatusCode, StreamSender

PATH = "/test.Service/Talk"
RECORDINGS = Path(__file__).parents[3] / "testdata" / "ext_proc" / "envoy-1.40.json"
UNTIL_SECONDS = 5.0
EPP_FINISHES = {"finish", "refuse", "raise"}
DEADLINE = (b"grpc-timeout", b"150m")
COMPRESSED = {b"12", b"13"}
"""UNIMPLEMENTED by ours, INTERNAL by grpc.aio: statuses of a message compressed in no known way."""

pytestmark = pytest.mark.timeout(120)


class Actor:
    """A handler that does what a message says, and writes down what it is told."""

    def __init__(self, sender: StreamSender) -> None:
        self.sender = sender
        self.told: list[object] = []
        self._keeps_open = False

    def on_message(self, payload: bytes) -> None:
        self.told.append(payload)
        sender, act = self.sender, payload.split(b":")[0].decode()
        if act == "echo":
            sender.send(payload)
        elif act == "burst":
            for number in range(5):
                sender.send(b"%d" % number + payload)
        elif act == "keep":
            self._keeps_open = True
        elif act == "finish":
            sender.send(b"last")
            sender.finish(metadata=[("why", "told"), ("raw-bin", b"\x00\xff")])
            sender.send(b"ignored")
        elif act == "refuse":
            sender.finish(StatusCode.INVALID_ARGUMENT, "100% nö")
        elif act == "raise":
            sender.send(b"never sent")
            raise LookupError(act)

    def on_half_close(self) -> None:
        self.told.append("half-close")
        if not self._keeps_open:
            self.sender.send(b"bye")
            self.sender.finish()

    def on_closed(self, reason: CloseReason) -> None:
        self.told.append(reason)


class Stage:
    """Finds the actor of a stream by the number in its metadata."""

    def __init__(self, actor: Callable[[StreamSender], Any] = Actor) -> None:
        self.actors: dict[str, Any] = {}
        self._actor = actor

    def __call__(self, sender: StreamSender) -> Any:
        name = str(dict(sender.metadata)["n"])
        self.actors[name] = self._actor(sender)
        return self.actors[name]


@dataclass
class Seen:
    """What the peer sees of one stream."""

    messages: list[bytes] = field(default_factory=list)
    fields: dict[bytes, bytes] = field(default_factory=dict)
    over: bool = False
    deframer: Deframer = field(default_factory=lambda: Deframer(1 << 30))

    @property
    def outcome(self) -> tuple[object, ...]:
        names = (b"grpc-status", b"grpc-message", b"why", b"raw-bin")
        # grpc.aio sends empty details, too
        return (self.messages, *(self.fields.get(name) or None for name in names))

    @property
    def status(self) -> bytes | None:
        return self.fields.get(b"grpc-status")


class Wire:
    """A client connection: the engine, a socket, and how to cut what goes through it."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        cuts: list[int],
        window_bytes: int = 65_535,
    ) -> None:
        self.engine = ngh2.Connection(ngh2.Role.CLIENT)
        self.engine.initiate_connection({ngh2.Setting.INITIAL_WINDOW_SIZE: window_bytes})
        self.seen: dict[int, Seen] = {}
        self._cuts = cuts or [1 << 20]
        self._reader, self._writer = reader, writer
        self._sending = asyncio.Lock()
        self._reading = asyncio.create_task(self._read())

    def open(self, name: str, *extra: tuple[bytes, bytes]) -> int:
        headers = [(b":path", PATH.encode()), *GRPC_HEADERS, (b"n", name.encode()), *extra]
        headers.sort(key=lambda header: not header[0].startswith(b":"))
        stream_id = self.engine.send_request(headers)
        self.seen[stream_id] = Seen()
        return stream_id

    async def flush(self) -> None:
        """Send everything, in pieces."""
        async with self._sending:
            out = self.engine.data_to_send()
            at = 0
            while at < len(out):
                size = self._cuts[0]
                self._cuts.append(self._cuts.pop(0))
                self._writer.write(out[at : at + size])
                at += size
                await asyncio.sleep(0)
            await self._writer.drain()

    async def close(self) -> None:
        self._reading.cancel()
        self._writer.transport.abort()
        await asyncio.wait([self._reading])

    async def _read(self) -> None:
        while data := await self._reader.read(1 << 16):
            self.engine.receive_data(data)
            for event in self.engine.events():
                self._note(event)
            await self.flush()

    def _note(self, event: ngh2.Event) -> None:
        seen = self.seen.get(getattr(event, "stream_id", 0))
        if seen is None:
            return
        if isinstance(event, ngh2.ResponseReceived | ngh2.TrailersReceived):
            seen.fields.update(event.headers)
            seen.over = seen.over or getattr(event, "end_stream", True)
        elif isinstance(event, ngh2.DataReceived):
            seen.messages += seen.deframer.feed(event.data)
        elif isinstance(event, ngh2.StreamClosed):
            seen.over = True


async def until(fact: Callable[[], bool], what: object) -> None:
    """Wait for the other side; a loop, because it has a loop of its own inside grpc."""
    try:
        async with asyncio.timeout(UNTIL_SECONDS):
            while not fact():
                await asyncio.sleep(0.0005)
    except TimeoutError:
        raise AssertionError(f"never came: {what}") from None


@dataclass
class Role:
    """One stream as the test plays it: what its actor must have been told by now."""

    stream_id: int
    told: int = 0
    answers: int = 0
    server_done: bool = False
    client_done: bool = False
    gone: bool = False
    keeps_open: bool = False
    end: str = "status"


Step = tuple[str, int, str]
LATE = 10
"""What the numbers of streams with a deadline have more than others."""

ACTS = ("echo", "burst", "keep", "quiet", "finish", "refuse", "raise")
STEPS = st.tuples(
    st.sampled_from(
        ["message"] * 6 + ["half-close", "reset", "send", "end", "empty", "gzip", "deadline"]
    ),
    st.integers(0, 2),
    st.sampled_from(ACTS),
)
ANSWERS = {"echo": 1, "burst": 5, "finish": 1}
CUTS = st.lists(st.integers(1, 400), max_size=5)


class Play:
    """Plays one conversation on one transport, keeping out of races that both may lose."""

    def __init__(self, wire: Wire, stage: Stage, prefix: str) -> None:
        self._wire, self._stage, self._prefix = wire, stage, prefix
        self._roles: dict[int, Role] = {}

    async def run(self, steps: list[Step]) -> tuple[object, ...]:
        for kind, number, act in steps:
            await self._step(kind, number, act)
        await self._wire.flush()
        for number, role in self._roles.items():
            await self._settled(number)
            if not role.server_done and not role.gone:
                self._actor(number).sender.finish(StatusCode.UNAVAILABLE, "curtain")
                role.server_done, role.told = True, role.told + 1
            await self._settled(number)
        told = [self._actor(number).told for number in sorted(self._roles)]
        outcomes = [self._outcome(role) for _, role in sorted(self._roles.items())]
        return told, outcomes

    def _outcome(self, role: Role) -> object:
        """What the peer saw; where the transports differ in words, what it means."""
        seen = self._wire.seen[role.stream_id]
        if role.end == "reset":
            return seen.messages
        if role.end == "gzip":
            return seen.messages, seen.status in COMPRESSED
        if role.end == "deadline":
            return seen.messages, seen.status
        return seen.outcome

    async def _step(self, kind: str, number: int, act: str) -> None:
        if kind == "deadline":
            await self._wait_in_vain(number + LATE)
            return
        role = self._roles.get(number)
        if role is None:
            role = self._roles[number] = Role(self._wire.open(f"{self._prefix}{number}"))
        if role.server_done or role.gone:
            return
        if kind in {"message", "empty"} and not role.client_done:
            payload = b"" if kind == "empty" else f"{act}:{role.told}".encode()
            self._wire.engine.send_data(role.stream_id, message(payload))
            role.told += 1
            role.answers += ANSWERS.get(act, 0) if kind == "message" else 0
            role.keeps_open = role.keeps_open or (kind == "message" and act == "keep")
            if kind == "message" and act in EPP_FINISHES:
                await self._finished(number, role)
        elif kind == "gzip" and not role.client_done:
            await self._answered(number, role)
            self._wire.engine.send_data(role.stream_id, b"\x01" + message(b"x")[1:])
            role.end = kind  # no message, but the end
            await self._finished(number, role)
        elif kind == "half-close" and not role.client_done:
            self._wire.engine.end_stream(role.stream_id)
            role.client_done = True
            role.told += 1
            if not role.keeps_open:
                await self._finished(number, role)
        elif kind == "reset":
            await self._answered(number, role)
            self._wire.engine.reset_stream(role.stream_id)
            role.gone, role.end = True, kind
            role.told += 1
            await self._settled(number)
        elif kind in {"send", "end"}:
            await self._from_outside(kind, number, role)

    async def _wait_in_vain(self, number: int) -> None:
        """A stream that nobody finishes; its end is waited for after everything else."""
        if number in self._roles:
            return
        role = Role(self._wire.open(f"{self._prefix}{number}", DEADLINE), end="deadline")
        self._roles[number] = role
        self._wire.engine.send_data(role.stream_id, message(b"echo:late"))
        role.told, role.server_done = 2, True
        await self._wire.flush()

    async def _from_outside(self, kind: str, number: int, role: Role) -> None:
        await self._settled(number)
        sender = self._actor(number).sender
        sender.send(b"from outside")
        role.answers += 1
        if kind == "end":
            sender.finish(StatusCode.RESOURCE_EXHAUSTED, "outside")
            await self._finished(number, role)

    async def _finished(self, number: int, role: Role) -> None:
        role.server_done = True
        role.told += 1
        await self._settled(number)

    async def _answered(self, number: int, role: Role) -> None:
        """The peer has what was sent so far; what is on its way to it at such an end is lost."""
        await self._settled(number)
        seen = self._wire.seen[role.stream_id]
        await until(lambda: len(seen.messages) >= role.answers, f"answer {role.answers}")

    async def _settled(self, number: int) -> None:
        """The actor has been told everything sent so far, and the peer sees an end that is one."""
        await self._wire.flush()
        role = self._roles[number]
        name = f"{self._prefix}{number}"
        await until(lambda: name in self._stage.actors, f"stream {name}")
        told = self._actor(number).told
        await until(lambda: len(told) >= role.told, f"call {role.told} of {name}, only {told}")
        if role.server_done and not role.gone:
            await until(lambda: self._wire.seen[role.stream_id].over, f"the end of {name}")

    def _actor(self, number: int) -> Any:
        return self._stage.actors[f"{self._prefix}{number}"]


@dataclass
class Theatre:
    """Both transports, with a stage each."""

    stages: list[Stage]
    ports: list[int] = field(default_factory=list)
    servers: list[Any] = field(default_factory=list)
    count: int = 0

    async def start(self) -> None:
        makers: list[Any] = [GrpcioServer, NativeServer]
        for make, stage in zip(makers, self.stages, strict=True):
            self.servers.append(make({PATH: stage}, host="127.0.0.1"))
            self.ports.append(await self.servers[-1].start())

    async def stop(self) -> None:
        for server in self.servers:
            await server.stop(0)

    async def wires(self, cuts: list[int], **options: Any) -> list[Wire]:
        made = [await asyncio.open_connection("127.0.0.1", port) for port in self.ports]
        return [Wire(*streams, list(cuts), **options) for streams in made]

    async def play(self, steps: list[Step], cuts: list[int]) -> list[Any]:
        self.count += 1
        async with contextlib.AsyncExitStack() as closing:
            wires = await self.wires(cuts)
            for wire in wires:
                closing.push_async_callback(wire.close)
            plays = [
                Play(wire, stage, f"{self.count}-").run(steps)
                for wire, stage in zip(wires, self.stages, strict=True)
            ]
            return await asyncio.gather(*plays)


LOOPS = [
    pytest.param(asyncio.new_event_loop, id="asyncio"),
    pytest.param(uvloop.new_event_loop, id="uvloop"),
]


@pytest.mark.parametrize("loop", LOOPS)
def test_generated_conversations_mean_the_same_on_both_transports(
    loop: Any,
) -> None:
    theatre = Theatre([Stage(), Stage()])

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(theatre.start())

        @settings(max_examples=70)
        @given(st.lists(STEPS, max_size=14), CUTS)
        def play(steps: list[Step], cuts: list[int]) -> None:
            oracle, native = runner.run(theatre.play(steps, cuts))
            assert native == oracle

        try:
            play()
            left = [server.open_streams for server in theatre.servers]
        finally:
            runner.run(theatre.stop())

    assert left == [0, 0]
    assert theatre.count >= 50


async def test_what_was_sent_before_a_call_that_raises_arrives_on_both_transports() -> None:
    """The peer takes nothing until then: nothing of it has left when the handler raises."""
    stages = [Stage(), Stage()]
    theatre = Theatre(stages)
    await theatre.start()
    sent, outcomes = [b"%d" % n * 100_000 for n in range(5)], []

    for wire, stage in zip(await theatre.wires([], window_bytes=0), stages, strict=True):
        stream_id = wire.open("one")
        wire.engine.send_data(stream_id, message(b"quiet:0"))
        await wire.flush()
        await until(lambda: "one" in stage.actors and stage.actors["one"].told, "the message")  # noqa: B023 - awaited here
        for payload in sent:
            stage.actors["one"].sender.send(payload)
        wire.engine.send_data(stream_id, message(b"raise:1"))
        await wire.flush()
        await until(lambda: b"raise:1" in stage.actors["one"].told, "the last message")  # noqa: B023 - awaited here
        wire.engine.update_settings({ngh2.Setting.INITIAL_WINDOW_SIZE: 1 << 20})
        await wire.flush()
        await until(lambda: wire.seen[stream_id].over, "the end")  # noqa: B023 - awaited here
        outcomes.append((wire.seen[stream_id].outcome, stage.actors["one"].told))
        await wire.close()
    await theatre.stop()

    oracle, native = outcomes
    told = [b"quiet:0", b"raise:1", CloseReason.ERROR]
    assert native == oracle == ((sent, b"13", b"internal error", None, None), told)


async def all_cancelled(stage: Stage, count: int) -> None:
    def so() -> bool:
        told = [actor.told for actor in stage.actors.values()]
        return len(told) == count and all(CloseReason.CANCELLED in calls for calls in told)

    await until(so, "cancellations")


async def test_a_deadline_means_the_same_on_both_transports() -> None:
    stages = [Stage(), Stage()]
    theatre = Theatre(stages)
    await theatre.start()

    for wire, stage in zip(await theatre.wires([]), stages, strict=True):
        late = wire.open("late", DEADLINE)
        wire.engine.send_data(late, message(b"quiet:0"))
        wire.open("silent", DEADLINE)
        await wire.flush()
        await all_cancelled(stage, 2)
        await wire.close()
    await theatre.stop()

    oracle, native = ({n: a.told for n, a in stage.actors.items()} for stage in stages)
    assert (
        native
        == oracle
        == {"late": [b"quiet:0", CloseReason.CANCELLED], "silent": [CloseReason.CANCELLED]}
    )


def encoded(document: Any, kind: Any) -> bytes:
    """A recorded message as bytes; bytes fields hold text in the recording."""

    def with_base64(value: Any) -> Any:
        if isinstance(value, list):
            return [with_base64(item) for item in value]
        if not isinstance(value, dict):
            return value
        return {
            key: base64.b64encode(item.encode()).decode()
            if key in {"raw_value", "body"} and isinstance(item, str)
            else with_base64(item)
            for key, item in value.items()
        }

    made: bytes = json_format.ParseDict(with_base64(document), kind()).SerializeToString()
    return made


class Player(Actor):
    """Answers each recorded message with the recorded answers."""

    script: dict[int, list[bytes]]

    def on_message(self, payload: bytes) -> None:
        self.told.append(payload)
        for answer in self.script.get(len(self.told), []):
            self.sender.send(answer)


RECORDED = json.loads(RECORDINGS.read_text())


@pytest.mark.parametrize("cuts", [pytest.param([], id="whole"), pytest.param([7, 100], id="cut")])
async def test_recorded_conversations_mean_the_same_on_both_transports(cuts: list[int]) -> None:
    stages = [Stage(Player), Stage(Player)]
    theatre = Theatre(stages)
    await theatre.start()
    results: list[list[Any]] = [[], []]

    for wire, stage, result in zip(await theatre.wires(cuts), stages, results, strict=True):
        for number, recording in enumerate(RECORDED):
            result.append(await played(wire, stage, f"{number}", recording["events"]))
        await wire.close()
    await theatre.stop()

    oracle, native = results
    assert native == oracle
    assert len(native) == len(RECORDED)
    assert sum(len(messages) for _, (messages, *_) in native) > 100


async def played(wire: Wire, stage: Stage, name: str, events: list[Any]) -> tuple[Any, Any]:
    requests: list[bytes] = []
    script: dict[int, list[bytes]] = {}
    for event in events:
        if "envoy" in event:
            requests.append(encoded(event["envoy"], ProcessingRequest))
        elif "epp" in event:
            script.setdefault(len(requests), []).append(encoded(event["epp"], ProcessingResponse))
    Player.script = script
    stream_id = wire.open(name)
    for payload in requests:
        wire.engine.send_data(stream_id, message(payload))
    wire.engine.end_stream(stream_id)
    await wire.flush()
    await until(lambda: wire.seen[stream_id].over, f"the end of {name}")
    return stage.actors[name].told, wire.seen[stream_id].outcome


# The native side alone, where a split is exact and nothing may escape


def native_connection(stage: Any, **limits: Any) -> NativeConnection:
    return NativeConnection(
        {PATH: stage},
        TransportLimits(**limits),
        TransportStats(),
        clock=lambda: 0.0,
        call_later=lambda _seconds, _call: Timer(),
        flush=lambda: None,
        complain=lambda _kind: None,
    )


class Timer:
    def cancel(self) -> None:
        """Never fires anyway."""


def client_bytes(steps: list[Step], window_bytes: int = 65_535) -> bytes:
    """What a client sends that never hears an answer."""
    engine = ngh2.Connection(ngh2.Role.CLIENT)
    engine.initiate_connection({ngh2.Setting.INITIAL_WINDOW_SIZE: window_bytes})
    streams: dict[int, int] = {}
    out = [engine.data_to_send()]
    for kind, number, act in steps:
        if number not in streams:
            headers = [(b":path", PATH.encode()), *GRPC_HEADERS, (b"n", b"%d" % number)]
            headers.sort(key=lambda header: not header[0].startswith(b":"))
            streams[number] = engine.send_request(headers)
        try:
            if kind == "reset":
                engine.reset_stream(streams[number])
            elif kind == "half-close":
                engine.end_stream(streams[number])
            else:
                engine.send_data(streams[number], message(f"{act}:{kind}".encode()))
        except ngh2.NGH2Error:
            continue
        out.append(engine.data_to_send())
    return b"".join(out)


def heard(data: bytes, cuts: list[int]) -> tuple[Any, bytes]:
    stage = Stage()
    connection = native_connection(stage)
    out, at, turn = [], 0, 0
    while at < len(data):
        size = cuts[turn % len(cuts)] if cuts else len(data)
        connection.receive(data[at : at + size])
        connection.work()
        out.append(connection.output(1 << 20))
        at, turn = at + size, turn + 1
    connection.lost()
    return {name: actor.told for name, actor in stage.actors.items()}, b"".join(out)


@settings(max_examples=200)
@given(st.lists(STEPS, max_size=20), st.lists(st.integers(1, 60), min_size=1, max_size=5))
def test_every_split_into_reads_tells_handlers_the_same(steps: list[Step], cuts: list[int]) -> None:
    data = client_bytes(steps)

    whole, _ = heard(data, [])
    cut, _ = heard(data, cuts)

    assert cut == whole
    for calls in whole.values():
        assert [isinstance(call, CloseReason) for call in calls].count(True) == 1
        assert isinstance(calls[-1], CloseReason)


OPEN_WINDOWS = raw.settings({4: 1 << 20}) + raw.window_update(0, 1 << 20)
LARGEST = 5 * len(message(b"0burst:deadline"))
"""What one message makes us keep: the answers to a burst, which are longer than itself."""


TALK = st.tuples(st.just("message"), st.integers(0, 2), st.sampled_from(["echo", "burst", "quiet"]))


@settings(max_examples=200)
@given(
    st.lists(st.one_of(TALK, TALK, STEPS), min_size=10, max_size=40),
    st.lists(st.integers(1, 60), min_size=1, max_size=5),
    st.integers(0, 200),
)
def test_memory_stays_under_its_bound_whatever_is_said(
    steps: list[Step], cuts: list[int], bound: int
) -> None:
    """The peer takes no answer until it has said everything; it loses none by that."""
    data = client_bytes(steps, window_bytes=0)
    whole, _ = heard(data, [])
    stage, kept, at, turn = Stage(), [0], 0, 0
    connection = native_connection(stage, max_connection_bytes=bound + LARGEST)

    while at < len(data):
        size = cuts[turn % len(cuts)]
        connection.receive(data[at : at + size])
        connection.work()
        connection.output(1 << 20)
        kept.append(connection.pending_bytes)
        at, turn = at + size, turn + 1
    connection.receive(OPEN_WINDOWS)
    out = True
    while out or connection.ready:
        connection.work()
        out = bool(connection.output(1 << 20))
        kept.append(connection.pending_bytes)
    connection.lost()

    assert max(kept) <= bound + 2 * LARGEST
    assert {name: actor.told for name, actor in stage.actors.items()} == whole


@pytest.mark.fuzz
@settings(max_examples=300)
@given(
    st.lists(STEPS, max_size=12),
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=8),
    st.lists(st.integers(1, 200), min_size=1, max_size=4),
    st.binary(max_size=60),
)
def test_nothing_but_http2_errors_comes_out_of_junk(
    steps: list[Step], flips: list[tuple[int, int]], cuts: list[int], tail: bytes
) -> None:
    """Bytes of a real conversation with some of them changed, and junk behind."""
    data = bytearray(client_bytes(steps) + tail)
    for at, value in flips:
        if 24 < at < len(data):
            data[at] = value
    stage = Stage()
    connection = native_connection(stage)
    at, turn = 0, 0

    try:
        while at < len(data):
            connection.receive(bytes(data[at : at + cuts[turn % len(cuts)]]))
            connection.work()
            connection.output(1 << 20)
            at, turn = at + cuts[turn % len(cuts)], turn + 1
    except Http2Error:
        pass
    connection.lost()

    assert connection.open_streams == 0
    assert connection.pending_bytes == connection.engine.queued_bytes()
    for actor in stage.actors.values():
        assert [isinstance(call, CloseReason) for call in actor.told].count(True) == 1
