"""Flags of ``epp modelsim``, and running until a signal."""

import argparse
import asyncio
import io
import os
import re
import signal

import pytest

from epp.errors import ConfigError
from epp.modelsim.cli import EXAMPLES, add_arguments, options_from, run
from epp.modelsim.faults import Fault, FaultKind, parse_fault
from epp.modelsim.options import SimOptions
from epp.modelsim.step_model import EngineSettings


def parse(*arguments: str) -> SimOptions:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    add_arguments(parser)
    return options_from(parser.parse_args(arguments))


class ReadyLines(io.StringIO):
    """Standard output that tells when it is flushed."""

    def __init__(self) -> None:
        super().__init__()
        self.flushed = asyncio.Event()

    def flush(self) -> None:
        self.flushed.set()


@pytest.mark.parametrize(
    ("arguments", "want"),
    [
        pytest.param([], SimOptions(), id="defaults"),
        pytest.param(
            ["--host", "127.0.1.1", "--port", "0", "--count", "3", "--name", "pod"],
            SimOptions(host="127.0.1.1", port=0, count=3, name="pod"),
            id="pods",
        ),
        pytest.param(
            ["--model", "m", "--served-model-name", "a", "b", "--served-model-name", "c"],
            SimOptions(model="m", served_model_names=("a", "b", "c")),
            id="names",
        ),
        pytest.param(
            ["--lora", "sql, chat", "--lora", "code", "--max-loras", "2"],
            SimOptions(loras=("sql", "chat", "code"), engine=EngineSettings(max_loras=2)),
            id="adapters",
        ),
        pytest.param(
            ["--fault", "500:0.5", "--fault", "metrics-hang"],
            SimOptions(
                faults=(
                    Fault(kind=FaultKind.ERROR, probability=0.5),
                    parse_fault("metrics-hang"),
                )
            ),
            id="faults",
        ),
        pytest.param(
            ["--speed", "10", "--max-num-seqs", "4", "--num-gpu-blocks", "80"],
            SimOptions(engine=EngineSettings(speed=10.0, max_num_seqs=4, num_gpu_blocks=80)),
            id="engine",
        ),
        pytest.param(
            ["--metrics-page-kb", "94", "--honour-name-param"],
            SimOptions(metrics_page_kb=94, honour_name_param=True),
            id="metrics",
        ),
    ],
)
def test_flags_become_options(arguments: list[str], want: SimOptions) -> None:
    assert parse(*arguments) == want


@pytest.mark.parametrize(
    ("arguments", "want"),
    [
        pytest.param(["--speed", "0"], "--speed: must be above 0 (got 0.0)", id="speed"),
        pytest.param(["--speed", "nan"], "--speed: must be above 0 (got nan)", id="nan"),
        pytest.param(["--count", "0"], "--count: must be at least 1 (got 0)", id="count"),
        pytest.param(["--port", "70000"], "--port: must be at most 65535 (got 70000)", id="port"),
        pytest.param(["--block-size", "0"], "--block-size: must be at least 1", id="block-size"),
        pytest.param(["--drain-seconds", "-1"], "--drain-seconds: must be at least 0", id="drain"),
        pytest.param(["--lora", "a,,b"], "--lora: an empty name (got 'a,,b')", id="empty-adapter"),
        pytest.param(["--lora", "base"], "--lora: is the name of the base model", id="clash"),
        pytest.param(["--lora", "a", "--max-loras", "0"], "--max-loras: needs at", id="no-slot"),
        pytest.param(["--max-loras", "-1"], "--max-loras: must be at least 0 (got -1)", id="slots"),
        pytest.param(["--lora", "a,a"], "--lora: is named twice (got 'a')", id="adapter-twice"),
        pytest.param(
            ["--served-model-name", "b", "b"],
            "--served-model-name: is named twice (got 'b')",
            id="name-twice",
        ),
        pytest.param(
            ["--fault", "hang:1:5"], "--fault: fault: only slow kinds take SECONDS", id="seconds"
        ),
        pytest.param(["--fault", "boom"], "--fault: fault: is none of", id="fault"),
        pytest.param(
            ["--fault", "500:7"], "--fault: probability: must be between 0 and 1", id="probability"
        ),
    ],
)
def test_a_bad_value_names_flag_and_value(arguments: list[str], want: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(*arguments)

    assert want in str(caught.value)


def test_every_flag_of_the_examples_exists() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    add_arguments(parser)

    known = {flag for action in parser._actions for flag in action.option_strings}

    assert set(re.findall(r"--[a-z-]+", EXAMPLES)) <= known


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_says_when_it_is_ready_and_stops_at_a_signal(number: signal.Signals) -> None:
    out = ReadyLines()
    options = SimOptions(host="127.0.1.1", port=0, count=2, name="pod")
    running = asyncio.create_task(run(options, out=out), name="modelsim")
    await out.flushed.wait()

    os.kill(os.getpid(), number)

    assert await running == 0
    first, second = out.getvalue().splitlines()
    assert re.fullmatch(r"ready http://127\.0\.1\.1:\d+ pod-0", first)
    assert re.fullmatch(r"ready http://127\.0\.1\.2:\d+ pod-1", second)


async def test_a_stream_in_work_is_finished_after_the_signal() -> None:
    out = ReadyLines()
    engine = EngineSettings(decode_step_seconds=0.005)
    running = asyncio.create_task(run(SimOptions(port=0, engine=engine), out=out), name="modelsim")
    await out.flushed.wait()
    _, host, port = out.getvalue().split()[1].split(":")
    reader, writer = await asyncio.open_connection(host[2:], int(port))
    body = b'{"prompt":"x","stream":true,"max_tokens":10}'
    writer.write(b"POST /v1/completions HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
    await reader.readuntil(b"data: ")

    os.kill(os.getpid(), signal.SIGTERM)
    rest = await reader.read()
    writer.close()
    await writer.wait_closed()

    assert await running == 0
    assert b"[DONE]" in rest
    assert rest.endswith(b"0\r\n\r\n")
