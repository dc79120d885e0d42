"""RequestMetrics: the families about requests, with their model labels bounded.

Part of ``Metrics``, which see. The children that every request writes are bound once per
(model, target model, priority); the others are looked up when there is something to observe, so
that a model without, say, token counts exposes no empty histograms.
"""

from collections.abc import Iterable, Iterator

from epp.logs import get_logger
from epp.metrics import request_families as families
from epp.metrics.cells import (
    MAX_CELLS,
    CellStore,
    HistogramCell,
    NumberCell,
    histogram_store,
    number_store,
)
from epp.metrics.label_cap import LabelCap
from epp.metrics.usage import TokenUsage

log = get_logger(__name__)

_Route = tuple[str, str, int]


class BoundRequest:
    """What every request with these labels writes."""

    __slots__ = ("labels", "running", "size", "total")

    def __init__(self, owner: "RequestMetrics", labels: tuple[str, str, str]) -> None:
        self.labels = labels
        self.total = owner.total.at(labels)
        self.size = owner.size.at(labels)
        self.running = owner.running.at(labels)


class RequestMetrics:
    """Stores of the request families.

    Args:
        cap: Shared by model and target model names.
    """

    def __init__(self, cap: LabelCap) -> None:
        self._cap = cap
        self._bound: dict[tuple[str, str, str], BoundRequest] = {}
        self._by_route: dict[_Route, BoundRequest] = {}
        self._overflowed: dict[_Route, list[BoundRequest]] = {}
        self.total = number_store(families.REQUEST_TOTAL)
        self.errors = number_store(families.REQUEST_ERROR_TOTAL, kept_labels=("error_code",))
        self.running = number_store(families.RUNNING_REQUESTS)
        self.size = histogram_store(families.REQUEST_SIZE)
        self.duration = histogram_store(families.REQUEST_DURATION)
        self.response_size = histogram_store(families.RESPONSE_SIZE)
        self.input_tokens = histogram_store(families.INPUT_TOKENS)
        self.output_tokens = histogram_store(families.OUTPUT_TOKENS)
        self.cached_tokens = histogram_store(families.CACHED_TOKENS)
        self.per_output_token = histogram_store(families.TIME_PER_OUTPUT_TOKEN)
        self.first_token = histogram_store(families.TIME_TO_FIRST_TOKEN, kept_labels=("streaming",))
        self.streaming_per_token = histogram_store(families.STREAMING_TIME_PER_TOKEN)

    def number_stores(self) -> Iterable[CellStore[NumberCell]]:
        """Counters and gauges, for the registry."""
        return (self.total, self.errors, self.running)

    def histogram_stores(self) -> Iterator[CellStore[HistogramCell]]:
        """Histograms, for the registry."""
        yield from (self.duration, self.size, self.response_size)
        yield from (self.input_tokens, self.output_tokens, self.cached_tokens)
        yield from (self.per_output_token, self.first_token, self.streaming_per_token)

    def routed(self, model: str, target_model: str, priority: int, size_bytes: int) -> None:
        """Count a request that was given an endpoint; it is running from now on.

        Not to be called for requests without a body. With an empty model name the request is
        counted but not shown as running. Exactly one ``finished`` must follow.
        """
        bound = self._bind(model, target_model, priority)
        bound.total.value += 1.0
        bound.size.observe(size_bytes)
        if not model:
            return
        bound.running.value += 1.0
        if bound.labels[0] != model or bound.labels[1] != target_model:
            self._overflowed.setdefault((model, target_model, priority), []).append(bound)

    def finished(
        self,
        model: str,
        target_model: str,
        priority: int,
        *,
        duration_seconds: float | None = None,
        ttft_seconds: float | None = None,
        response_bytes: int | None = None,
        usage: TokenUsage | None = None,
        streaming: bool = False,
    ) -> None:
        """End a request that ``routed`` began, and observe what is known of it.

        Args:
            model: As given to ``routed``; likewise the next two.
            target_model: Name that the model server saw.
            priority: Priority of the request.
            duration_seconds: Headers to end of response; None when it was aborted.
            ttft_seconds: Headers to first body bytes; None when not seen.
            response_bytes: Length of the response body; None when not seen.
            usage: Token counts; None when not seen. Zero counts are not observed.
            streaming: The response was an event stream.
        """
        bound = self._release(model, target_model, priority)
        if model:
            bound.running.value -= 1.0
        duration = self._checked_duration(model, target_model, duration_seconds)
        if duration is not None:
            self.duration.at(bound.labels).observe(duration)
        self._observe_response(bound, response_bytes, usage, duration)
        if ttft_seconds is not None:
            flag = "true" if streaming else "false"
            self.first_token.cell(*bound.labels, flag).observe(ttft_seconds)
            if streaming and duration is not None and usage is not None:
                self._observe_streaming(bound, usage.completion_tokens, duration - ttft_seconds)

    def usage_known(
        self,
        model: str,
        target_model: str,
        priority: int,
        *,
        response_bytes: int | None,
        usage: TokenUsage | None,
        duration_seconds: float | None = None,
    ) -> None:
        """Observe what the gateway's access log adds after ``finished``.

        The duration serves the time per output token only; it was observed already.
        """
        bound = self._bind(model, target_model, priority)
        self._observe_response(bound, response_bytes, usage, duration_seconds)

    def failed(self, model: str, target_model: str, priority: int, error_code: str) -> None:
        """Count a failed request, at most once each. Unknown names are empty strings."""
        admit = self._cap.admit
        labels = (admit(model), admit(target_model), str(priority), error_code)
        self.errors.at(labels).value += 1.0

    def _observe_response(
        self,
        bound: BoundRequest,
        response_bytes: int | None,
        usage: TokenUsage | None,
        duration: float | None,
    ) -> None:
        labels = bound.labels
        if response_bytes is not None:
            self.response_size.at(labels).observe(response_bytes)
        if usage is None:
            return
        if usage.prompt_tokens > 0:
            self.input_tokens.at(labels).observe(usage.prompt_tokens)
        if usage.cached_tokens is not None:
            self.cached_tokens.at(labels).observe(usage.cached_tokens)
        if usage.completion_tokens > 0:
            self.output_tokens.at(labels).observe(usage.completion_tokens)
            if duration is not None and duration > 0:
                per_token = duration / usage.completion_tokens
                self.per_output_token.at(labels).observe(per_token)

    def _observe_streaming(self, bound: BoundRequest, tokens: int, rest_seconds: float) -> None:
        if tokens > 1 and rest_seconds > 0:
            self.streaming_per_token.at(bound.labels).observe(rest_seconds / (tokens - 1))

    def _checked_duration(self, model: str, target_model: str, value: float | None) -> float | None:
        """A duration is observed only when it is positive.

        Reference: GAIE v0.3.0 RecordRequestLatencies logs an error unless complete > received.
        """
        if value is None or value > 0:
            return value
        log.error(
            "request duration is not positive, not observed",
            model=model,
            target_model=target_model,
            duration_seconds=value,
        )
        return None

    def _bind(self, model: str, target_model: str, priority: int) -> BoundRequest:
        bound = self._by_route.get((model, target_model, priority))
        if bound is not None:
            return bound
        labels = (self._cap.admit(model), self._cap.admit(target_model), str(priority))
        bound = self._bind_labels(labels)
        if labels[0] == model and labels[1] == target_model and len(self._by_route) < MAX_CELLS:
            self._by_route[model, target_model, priority] = bound
        return bound

    def _bind_labels(self, labels: tuple[str, str, str]) -> BoundRequest:
        bound = self._bound.get(labels)
        if bound is None:
            bound = BoundRequest(self, labels)
            if len(self._bound) < MAX_CELLS:
                self._bound[labels] = bound
        return bound

    def _release(self, model: str, target_model: str, priority: int) -> BoundRequest:
        """Find the children that ``routed`` wrote to, also when a name was pinned in between."""
        route = (model, target_model, priority)
        waiting = self._overflowed.get(route) if self._overflowed else None
        if not waiting:
            return self._bind(model, target_model, priority)
        bound = waiting.pop()
        if not waiting:
            del self._overflowed[route]
        return bound
