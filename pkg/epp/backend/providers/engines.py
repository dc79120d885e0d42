"""EngineMappings: the engines that a process knows, and which one a pod runs.

A pod names its engine in a label; without one, or with a name nobody knows, the default engine's
mapping applies. Flags that name a single metric change the default engine's mapping, as the flags
of the reference describe one mapping for the whole process.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from epp.backend.metrics_spec import parse_metric_spec
from epp.backend.providers.mapping import Candidates, EngineMapping
from epp.backend.providers.sglang import SGLANG
from epp.backend.providers.triton import TRITON
from epp.backend.providers.triton_tensorrt_llm import TRITON_TENSORRT_LLM
from epp.backend.providers.trtllm import TRTLLM_SERVE
from epp.backend.providers.vllm import VLLM
from epp.errors import ConfigError

ENGINE_LABEL = "llm-d.ai/engine-type"
LEGACY_ENGINE_LABEL = "inference.networking.k8s.io/engine-type"
DEFAULT_ENGINE = "vllm"

BUILTIN_ENGINES = (VLLM, SGLANG, TRTLLM_SERVE, TRITON_TENSORRT_LLM, TRITON)


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricOverrides:
    """Texts of the flags that name one metric; None keeps the engine's, empty switches it off."""

    queued: str | None = None
    running: str | None = None
    kv_usage: str | None = None
    lora: str | None = None
    cache_info: str | None = None

    def apply(self, mapping: EngineMapping) -> EngineMapping:
        """Return the mapping with the given specs in place of its own.

        Raises:
            ConfigError: A spec cannot be read; the error names the flag.
        """
        given = {
            "queued": _candidates(self.queued, "--total-queued-requests-metric"),
            "running": _candidates(self.running, "--total-running-requests-metric"),
            "kv_usage": _candidates(self.kv_usage, "--kv-cache-usage-percentage-metric"),
            "lora": _candidates(self.lora, "--lora-info-metric"),
            "cache_info": _candidates(self.cache_info, "--cache-info-metric"),
        }
        return replace(mapping, **{k: v for k, v in given.items() if v is not None})  # type: ignore[arg-type]  # mypy cannot see that every key is a field of type Candidates


class EngineMappings:
    """Engines by name, with a default.

    Args:
        engines: Engines besides the built-in ones; an entry replaces a built-in one of its name
            entirely.
        default_engine: Engine of pods that name none.
        overrides: Single specs that change in the default engine's mapping.
        engine_label: Pod label that names the engine; the legacy label is read after it.

    Raises:
        ConfigError: A name is empty, reserved or given twice; the default engine is unknown.
    """

    def __init__(
        self,
        engines: Iterable[EngineMapping] = (),
        *,
        default_engine: str = DEFAULT_ENGINE,
        overrides: MetricOverrides | None = None,
        engine_label: str = ENGINE_LABEL,
    ) -> None:
        self._engines = {engine.name: engine for engine in BUILTIN_ENGINES} | _by_name(engines)
        default = self._engines.get(default_engine)
        if default is None:
            known = ", ".join(sorted(self._engines))
            raise ConfigError(
                f"no such engine; known are {known}", field="defaultEngine", value=default_engine
            )
        self._default = overrides.apply(default) if overrides else default
        self._engines[default_engine] = self._default
        self._labels = (engine_label, LEGACY_ENGINE_LABEL)

    @property
    def default(self) -> EngineMapping:
        """The mapping of pods that name no engine."""
        return self._default

    def for_labels(self, labels: Mapping[str, str]) -> EngineMapping:
        """The mapping of a pod, by its labels."""
        for label in self._labels:
            name = labels.get(label)
            if name is not None:
                return self._engines.get(name, self._default)
        return self._default


def _candidates(text: str | None, source: str) -> Candidates | None:
    if text is None:
        return None
    spec = parse_metric_spec(text, source=source)
    return () if spec is None else (spec,)


def _by_name(engines: Iterable[EngineMapping]) -> dict[str, EngineMapping]:
    found: dict[str, EngineMapping] = {}
    for engine in engines:
        if not engine.name or engine.name == "default":
            raise ConfigError(
                "an engine needs a name other than 'default'",
                field="engineConfigs[].name",
                value=engine.name,
            )
        if engine.name in found:
            raise ConfigError(
                "the engine is configured twice", field="engineConfigs[].name", value=engine.name
            )
        found[engine.name] = engine
    return found
