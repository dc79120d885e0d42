"""What ``epp modelsim`` is asked to do; every value is checked when the object is made."""

from dataclasses import dataclass, field

from epp.errors import ConfigError
from epp.modelsim.faults import Fault
from epp.modelsim.step_model import EngineSettings

DEFAULT_PORT = 8000
MAX_BODY_BYTES = 64 * 1024 * 1024
"""Longest request body; far above what any proxy in front of it lets through."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimOptions:
    """One simulated pod, or ``count`` of them in one process.

    Attributes:
        host: Address to listen on; with ``count`` the first of consecutive ones.
        port: Port, the same for every pod; 0 takes a free one.
        count: Pods in this process.
        name: Pod name, in ``x-sim-pod``; with ``count`` above 1 a number follows.
        model: Path of the model, ``root`` in the model list.
        served_model_names: Names it answers to; empty means ``model``. The first one is the
            ``model_name`` label of the metrics.
        loras: Names of the LoRA adapters, accepted as model names.
        engine: Size and speed.
        faults: Faults from the start.
        metrics_page_kb: Least size of the metrics page; 0 leaves it as it is.
        honour_name_param: Whether ``/metrics?name[]=`` restricts the page.
        drain_seconds: How long running requests may take after SIGTERM.
        max_body_bytes: Longest request body; a longer one gets a 413.
    """

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    count: int = 1
    name: str = "modelsim"
    model: str = "base"
    served_model_names: tuple[str, ...] = ()
    loras: tuple[str, ...] = ()
    engine: EngineSettings = field(default_factory=EngineSettings)
    faults: tuple[Fault, ...] = ()
    metrics_page_kb: int = 0
    honour_name_param: bool = False
    drain_seconds: float = 5.0
    max_body_bytes: int = MAX_BODY_BYTES

    @property
    def model_names(self) -> tuple[str, ...]:
        """Names of the base model, the main one first."""
        return self.served_model_names or (self.model,)

    def __post_init__(self) -> None:
        """Raise ConfigError, naming flag and value, for what cannot work."""
        self._check_ranges()
        clash = set(self.model_names) & set(self.loras)
        if clash:
            raise ConfigError(
                "is the name of the base model too", source="--lora", value=min(clash)
            )
        if self.loras and not self.engine.max_loras:
            raise ConfigError("needs at least one slot", source="--max-loras", value=0)
        for flag, names in (("--served-model-name", self.model_names), ("--lora", self.loras)):
            if not all(names):
                raise ConfigError("an empty name", source=flag, value=",".join(names))
            twice = [name for name in names if names.count(name) > 1]
            if twice:
                raise ConfigError("is named twice", source=flag, value=twice[0])

    def _check_ranges(self) -> None:
        engine = self.engine
        for flag, value, least in (
            ("--count", self.count, 1),
            ("--port", self.port, 0),
            ("--max-num-seqs", engine.max_num_seqs, 1),
            ("--max-num-batched-tokens", engine.max_num_batched_tokens, 1),
            ("--num-gpu-blocks", engine.num_gpu_blocks, 1),
            ("--block-size", engine.block_size, 1),
            ("--max-loras", engine.max_loras, 0),
            ("--lora-swap-seconds", engine.lora_swap_seconds, 0),
            ("--decode-step-seconds", engine.decode_step_seconds, 0),
            ("--decode-growth-ratio", engine.decode_growth_ratio, 0),
            ("--metrics-page-kb", self.metrics_page_kb, 0),
            ("--drain-seconds", self.drain_seconds, 0),
            ("--max-body-bytes", self.max_body_bytes, 1),
        ):
            if not value >= least:
                raise ConfigError(f"must be at least {least}", source=flag, value=value)
        for flag, rate in (
            ("--prefill-tokens-per-second", engine.prefill_tokens_per_second),
            ("--speed", engine.speed),
        ):
            if not rate > 0:
                raise ConfigError("must be above 0", source=flag, value=rate)
        if self.port > 65535:
            raise ConfigError("must be at most 65535", source="--port", value=self.port)
