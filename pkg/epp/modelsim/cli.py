"""``epp modelsim``: flags, and running the pods until a signal."""

import argparse
import asyncio
import signal
import sys
from typing import TextIO

from epp.errors import ConfigError
from epp.modelsim.faults import DEFAULT_SLOW_SECONDS, Fault, fault_names, parse_fault
from epp.modelsim.model_sim import Fleet
from epp.modelsim.options import DEFAULT_PORT, MAX_BODY_BYTES, SimOptions
from epp.modelsim.step_model import EngineSettings

EXAMPLES = """\
examples:
  epp modelsim --port 8000 --name pod-a
  epp modelsim --host 127.0.1.1 --count 10 --port 8000     ten pods, 127.0.1.1 to 127.0.1.10
  epp modelsim --model meta/llama --served-model-name llama llama-8b --speed 10
  epp modelsim --lora sql,chat,code --max-loras 2 --lora-swap-seconds 0.5
  epp modelsim --fault 500:0.1 --fault metrics-hang
  curl -X POST localhost:8000/admin/fault -d '{"fault": "slow", "seconds": 3, "count": 5}'
  curl localhost:8000/admin/state

It prints `ready http://IP:PORT NAME` for each pod once it listens.
"""

_ENGINE = EngineSettings()
_DEFAULTS = SimOptions()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags to a parser. ``options_from`` reads what it parsed."""
    _add_pod_arguments(parser.add_argument_group("pods"))
    _add_model_arguments(parser.add_argument_group("models"))
    _add_engine_arguments(parser.add_argument_group("engine"))
    other = parser.add_argument_group("metrics and faults")
    _number(other, "--metrics-page-kb", int, 0, "pad the metrics page to this size, in 1000 bytes")
    other.add_argument(
        "--honour-name-param",
        action="store_true",
        help="restrict /metrics?name[]=... to these samples (default: ignored, as vLLM does)",
    )
    other.add_argument(
        "--fault",
        action="append",
        default=[],
        metavar="KIND[:PROBABILITY[:SECONDS]]",
        help=f"a fault from the start; repeat for more. PROBABILITY is the share of requests that"
        f" it hits (default: 1). SECONDS is for the slow kinds only: how long the answer is held"
        f" back (default: {DEFAULT_SLOW_SECONDS:g}). KIND is one of: {', '.join(fault_names())}",
    )


def options_from(namespace: argparse.Namespace) -> SimOptions:
    """Read the flags. Raises ConfigError naming flag and value."""
    loras = _names(namespace.lora)
    engine = EngineSettings(
        max_num_seqs=namespace.max_num_seqs,
        max_num_batched_tokens=namespace.max_num_batched_tokens,
        num_gpu_blocks=namespace.num_gpu_blocks,
        block_size=namespace.block_size,
        prefill_tokens_per_second=namespace.prefill_tokens_per_second,
        decode_step_seconds=namespace.decode_step_seconds,
        decode_growth_ratio=namespace.decode_growth_ratio,
        max_loras=_max_loras(namespace.max_loras, loras),
        lora_swap_seconds=namespace.lora_swap_seconds,
        speed=namespace.speed,
    )
    return SimOptions(
        host=namespace.host,
        port=namespace.port,
        count=namespace.count,
        name=namespace.name,
        model=namespace.model,
        served_model_names=tuple(namespace.served_model_name),
        loras=loras,
        engine=engine,
        faults=tuple(_fault(text) for text in namespace.fault),
        metrics_page_kb=namespace.metrics_page_kb,
        honour_name_param=namespace.honour_name_param,
        drain_seconds=namespace.drain_seconds,
        max_body_bytes=namespace.max_body_bytes,
    )


async def run(options: SimOptions, *, out: TextIO | None = None) -> int:
    """Serve until SIGTERM or SIGINT, then let requests in work finish.

    Returns:
        Exit status 0.

    Raises:
        ConfigError: An address cannot be used.
    """
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    fleet = Fleet(options)
    await fleet.start()
    try:
        for pod in fleet.pods:
            print(f"ready {pod.url} {pod.name}", file=out or sys.stdout)
        (out or sys.stdout).flush()
        await stopped.wait()
    finally:
        await fleet.stop(options.drain_seconds)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
    return 0


def _add_pod_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--host",
        default=_DEFAULTS.host,
        metavar="IP",
        help="address to listen on (default: %(default)s)",
    )
    _number(group, "--port", int, DEFAULT_PORT, "port; 0 takes a free one")
    _number(group, "--count", int, 1, "pods in this process, on consecutive addresses")
    group.add_argument(
        "--name",
        default=_DEFAULTS.name,
        help="pod name in x-sim-pod; with --count, -0, -1 ... follows (default: %(default)s)",
    )
    _number(group, "--drain-seconds", float, _DEFAULTS.drain_seconds, "time to finish at SIGTERM")
    _number(group, "--max-body-bytes", int, MAX_BODY_BYTES, "longest request body")


def _add_model_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--model", default=_DEFAULTS.model, help="path of the model (default: %(default)s)"
    )
    group.add_argument(
        "--served-model-name",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME",
        help="names it answers to (default: the model)",
    )
    group.add_argument(
        "--lora",
        action="append",
        default=[],
        metavar="NAME[,NAME...]",
        help="LoRA adapters, each a model name of its own",
    )
    _number(group, "--max-loras", int, 1, "adapters in one batch")
    _number(group, "--lora-swap-seconds", float, 0.0, "cost of loading an adapter")


def _add_engine_arguments(group: argparse._ArgumentGroup) -> None:
    _number(group, "--max-num-seqs", int, _ENGINE.max_num_seqs, "requests in the running batch")
    _number(
        group, "--max-num-batched-tokens", int, _ENGINE.max_num_batched_tokens, "tokens of a step"
    )
    _number(
        group,
        "--num-gpu-blocks",
        int,
        _ENGINE.num_gpu_blocks,
        "KV blocks; times the block size they are the longest context",
    )
    _number(group, "--block-size", int, _ENGINE.block_size, "tokens per KV block")
    _number(
        group,
        "--prefill-tokens-per-second",
        float,
        _ENGINE.prefill_tokens_per_second,
        "prompt tokens computed per second",
    )
    _number(
        group,
        "--decode-step-seconds",
        float,
        _ENGINE.decode_step_seconds,
        "duration of a decode step with one request",
    )
    _number(
        group,
        "--decode-growth-ratio",
        float,
        _ENGINE.decode_growth_ratio,
        "growth of that duration with each further request",
    )
    _number(
        group, "--speed", float, _ENGINE.speed, "divides every duration: 10 is ten times faster"
    )


def _number(
    group: argparse._ArgumentGroup,
    flag: str,
    kind: type[int] | type[float],
    default: float,
    text: str,
) -> None:
    group.add_argument(
        flag, type=kind, default=default, metavar="N", help=f"{text} (default: {default})"
    )


def _names(lists: list[str]) -> tuple[str, ...]:
    return tuple(name.strip() for text in lists for name in text.split(","))


def _max_loras(wanted: int, loras: tuple[str, ...]) -> int:
    """Without adapters the flag means nothing, but has to be a number of slots all the same."""
    return wanted if loras or wanted < 0 else 0


def _fault(text: str) -> Fault:
    try:
        return parse_fault(text)
    except ConfigError as exc:
        raise ConfigError(exc.message, source="--fault", field=exc.field, value=text) from exc
