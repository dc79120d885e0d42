"""The asyncio driver of the step model: it runs steps while there is work, and no timer otherwise.

Owner of the one timer. Steps follow each other on their own schedule rather than on the loop's, so
that a timer that fires late, or steps shorter than a timer can be, do not make the engine slower.
"""

import asyncio
from collections.abc import Callable

from epp.logs import get_logger
from epp.modelsim.sequence import Sequence
from epp.modelsim.step_model import StepModel
from epp.modelsim.vllm_metrics import VllmMetrics

log = get_logger(__name__)

Listener = Callable[[Sequence], None]
"""Called after each step that gave the sequence a token or finished it."""

_STEPS_PER_TURN = 32
"""Steps made up for in one turn of the loop, so that requests are read in between."""
_MAX_LAG_SECONDS = 0.1
"""A schedule further behind than this starts anew: the machine, not the timer, is too slow."""


class Engine:
    """Feeds sequences to a step model and tells their listeners. Not thread-safe."""

    def __init__(
        self,
        model: StepModel,
        metrics: VllmMetrics,
        *,
        clock: Callable[[], float],
        changed: Callable[[], None],
    ) -> None:
        """Take the model; ``changed`` is called whenever its numbers may be others."""
        self.model = model
        self._metrics = metrics
        self._clock = clock
        self._changed = changed
        self._listeners: dict[Sequence, Listener] = {}
        self._handle: asyncio.Handle | None = None
        self._step_ends_at: float | None = None

    @property
    def is_idle(self) -> bool:
        """Whether nothing is planned: no step, no timer."""
        return self._handle is None and self._step_ends_at is None

    def submit(self, sequence: Sequence, listener: Listener) -> None:
        """Queue a sequence; an idle engine starts at the end of this turn of the loop.

        Raises:
            ValueError: It can never run on this engine.
        """
        self.model.submit(sequence, self._clock())
        self._listeners[sequence] = listener
        if self.is_idle:
            # Not at once, so that requests that came together share the first step.
            self._handle = asyncio.get_running_loop().call_soon(self._wake)

    def abort(self, sequence: Sequence) -> None:
        """Drop a sequence and free what it holds; nothing happens when it has ended."""
        self._listeners.pop(sequence, None)
        if self.model.abort(sequence):
            self._metrics.sequence_aborted()
            self._changed()

    def stop(self) -> None:
        """Stop stepping and forget every sequence."""
        if self._handle is not None:
            self._handle.cancel()
        self._handle = self._step_ends_at = None
        for sequence in list(self._listeners):
            self.abort(sequence)

    def _wake(self) -> None:
        self._handle = None
        self._begin(self._clock())
        self._set_timer()

    def _turn(self) -> None:
        self._handle = None
        for _ in range(_STEPS_PER_TURN):
            now = self._clock()
            if self._step_ends_at is None or self._step_ends_at > now:
                break
            late = now - self._step_ends_at > _MAX_LAG_SECONDS
            self._finish(now if late else self._step_ends_at)
        self._set_timer()

    def _begin(self, at: float) -> None:
        duration = self.model.begin_step(at)
        self._step_ends_at = None if duration is None else at + duration
        self._changed()

    def _set_timer(self) -> None:
        if self._handle is None and self._step_ends_at is not None:
            delay = max(self._step_ends_at - self._clock(), 0.0)
            self._handle = asyncio.get_running_loop().call_later(delay, self._turn)

    def _finish(self, at: float) -> None:
        """End the step and begin the next one, then tell the listeners."""
        result = self.model.end_step(at)
        self._begin(at)
        if not result.tokens:
            return
        self._metrics.step_finished(result)
        for sequence in result.advanced:
            if sequence.is_over:
                self._metrics.sequence_finished(sequence)
                listener = self._listeners.pop(sequence, None)
            else:
                listener = self._listeners.get(sequence)
            if listener is not None:
                self._tell(listener, sequence)

    def _tell(self, listener: Listener, sequence: Sequence) -> None:
        # One broken reply must not stop the engine for all the others.
        try:
            listener(sequence)
        except Exception as exc:
            log.error("reply failed", error=exc)
            self.abort(sequence)
