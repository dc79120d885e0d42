"""Continuous batching as a pure model: sequences in, steps of a computed duration out.

Owner of the waiting queue, the running batch, the KV cache and the adapter slots. The caller owns
time: ``begin_step`` says how long the step takes, ``end_step`` applies it. A step decodes one token
for every running sequence and spends what is left of the token budget on prefill, as vLLM does.

Invariants: sequences are admitted in order of arrival, except that one whose adapter does not fit
is passed over; a sequence that finds no block preempts the youngest running one, which computes
again later; nothing of an aborted sequence stays. No clock, no I/O, no randomness.
"""

import math
from collections import deque
from dataclasses import dataclass

from epp.modelsim.adapter_slots import AdapterSlots
from epp.modelsim.kv_cache import KvCache
from epp.modelsim.sequence import Sequence, SequenceState


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """Size and speed of the engine.

    Attributes:
        max_num_seqs: Sequences in the running batch.
        max_num_batched_tokens: Tokens of one step, prefill and decode together.
        num_gpu_blocks: KV blocks.
        block_size: Tokens per KV block.
        prefill_tokens_per_second: Prompt tokens computed per second, cached ones excluded.
        decode_step_seconds: Duration of a decode step with one sequence.
        decode_growth_ratio: Growth of that duration with each further sequence.
        max_loras: Different adapters in one batch; 0 without LoRA.
        lora_swap_seconds: What loading an adapter adds to a step.
        speed: Divides every duration: 10 is ten times faster.
    """

    max_num_seqs: int = 256
    max_num_batched_tokens: int = 8192
    num_gpu_blocks: int = 8192
    block_size: int = 16
    prefill_tokens_per_second: float = 20_000.0
    decode_step_seconds: float = 0.010
    decode_growth_ratio: float = 0.01
    max_loras: int = 0
    lora_swap_seconds: float = 0.0
    speed: float = 1.0

    @property
    def capacity_tokens(self) -> int:
        """Tokens that the whole KV cache holds: the longest possible context."""
        return self.num_gpu_blocks * self.block_size


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """What a finished step did.

    Attributes:
        advanced: Sequences that got a token or finished, in batch order.
        tokens: Tokens computed, prefill and decode.
    """

    advanced: tuple[Sequence, ...]
    tokens: int


class StepModel:
    """The engine. Call ``begin_step`` and ``end_step`` in turn."""

    def __init__(self, settings: EngineSettings) -> None:
        self.settings = settings
        self.cache = KvCache(settings.num_gpu_blocks)
        self.adapters = AdapterSlots(settings.max_loras)
        self._waiting: deque[Sequence] = deque()
        self._running: dict[Sequence, None] = {}
        self._plan: dict[Sequence, int] = {}
        self.num_preemptions = 0

    @property
    def num_waiting(self) -> int:
        """Sequences in the waiting queue."""
        return len(self._waiting)

    @property
    def num_deferred(self) -> int:
        """Waiting sequences that no adapter slot is free for."""
        return sum(1 for sequence in self._waiting if not self.adapters.fits(sequence.adapter))

    @property
    def num_running(self) -> int:
        """Sequences in the batch."""
        return len(self._running)

    @property
    def waiting_adapters(self) -> list[str]:
        """Adapters of waiting sequences, in order of the queue."""
        return list(dict.fromkeys(s.adapter for s in self._waiting if s.adapter is not None))

    def submit(self, sequence: Sequence, now: float) -> None:
        """Queue a sequence.

        Raises:
            ValueError: It could never run: longer than the cache, or no adapter slot at all.
        """
        if sequence.prompt_tokens + sequence.output_tokens > self.settings.capacity_tokens:
            raise ValueError("the sequence is longer than the KV cache")
        if sequence.adapter is not None and not self.settings.max_loras:
            raise ValueError("the engine has no adapter slots")
        sequence.arrived_at = now
        self._waiting.append(sequence)

    def abort(self, sequence: Sequence) -> bool:
        """Forget a sequence at once and free what it holds; False when it had ended before."""
        if sequence.is_over:
            return False
        if sequence.state is SequenceState.WAITING:
            self._waiting.remove(sequence)
        else:
            self._leave_batch(sequence)
        sequence.state = SequenceState.ABORTED
        return True

    def begin_step(self, now: float) -> float | None:
        """Plan the next step.

        Returns:
            Its duration in seconds, or None when there is nothing to do.
        """
        self._plan = {}
        preempted = self._plan_running()
        swaps = 0 if preempted else self._admit(now)
        if not self._plan:
            return None
        return self._duration(swaps)

    def end_step(self, now: float) -> StepResult:
        """Apply the planned step, which ends now."""
        plan, self._plan = self._plan, {}
        advanced = tuple(
            sequence for sequence, tokens in plan.items() if _compute(sequence, tokens)
        )
        for sequence in plan:
            self._publish(sequence)
        for sequence in advanced:
            self._count_token(sequence, now)
        return StepResult(advanced=advanced, tokens=sum(plan.values()))

    def _duration(self, swaps: int) -> float:
        settings = self.settings
        decoding = sum(1 for sequence in self._plan if not sequence.prefill_left)
        prefill = sum(self._plan.values()) - decoding
        seconds = prefill / settings.prefill_tokens_per_second + swaps * settings.lora_swap_seconds
        if decoding:
            growth = 1 + settings.decode_growth_ratio * (decoding - 1)
            seconds += settings.decode_step_seconds * growth
        return seconds / settings.speed

    def _plan_running(self) -> bool:
        """Plan the batch as it is; returns whether somebody had to be preempted."""
        budget = self.settings.max_num_batched_tokens
        preempted = False
        for sequence in list(self._running):
            if not budget:
                break
            if sequence.state is not SequenceState.RUNNING:
                continue
            if self._make_room(sequence):
                preempted = True
            if sequence.state is SequenceState.RUNNING:
                tokens = min(sequence.prefill_left or 1, budget)
                self._plan[sequence] = tokens
                budget -= tokens
        return preempted

    def _make_room(self, sequence: Sequence) -> bool:
        """Give a sequence the block that its next token needs, at the expense of younger ones."""
        preempted = False
        while sequence.held_blocks * self.settings.block_size < sequence.context_tokens:
            if self.cache.take((), 1):
                sequence.private += 1
                continue
            victim = next(reversed(self._running))
            self._leave_batch(victim)
            victim.state = SequenceState.WAITING
            victim.preemptions += 1
            self.num_preemptions += 1
            self._waiting.appendleft(victim)
            preempted = True
            if victim is sequence:
                break
        return preempted

    def _admit(self, now: float) -> int:
        """Move waiting sequences into the batch; returns how many adapters had to be loaded."""
        budget = self.settings.max_num_batched_tokens - sum(self._plan.values())
        swaps = 0
        passed_over: list[Sequence] = []
        while self._waiting and budget > 0 and self.num_running < self.settings.max_num_seqs:
            sequence = self._waiting.popleft()
            if not self.adapters.fits(sequence.adapter):
                passed_over.append(sequence)
                continue
            if not self._take_blocks(sequence):
                self._waiting.appendleft(sequence)
                break
            swaps += self._enter_batch(sequence, now)
            tokens = min(sequence.prefill_left, budget)
            self._plan[sequence] = tokens
            budget -= tokens
        self._waiting.extendleft(reversed(passed_over))
        return swaps

    def _take_blocks(self, sequence: Sequence) -> bool:
        # At least one prompt token is always computed: its result is the first output token.
        size = self.settings.block_size
        hits = self.cache.match(sequence.hashes, limit=(sequence.prompt_tokens - 1) // size)
        shared = list(sequence.hashes[:hits])
        private = -(-sequence.context_tokens // size) - hits
        if not self.cache.take(shared, private):
            return False
        sequence.shared, sequence.private = shared, private
        sequence.prefill_left = sequence.context_tokens - hits * size
        if not sequence.preemptions:
            sequence.cached_tokens = hits * size
        return True

    def _enter_batch(self, sequence: Sequence, now: float) -> bool:
        if math.isnan(sequence.admitted_at):
            sequence.admitted_at = max(now, sequence.arrived_at)
        sequence.state = SequenceState.RUNNING
        self._running[sequence] = None
        return self.adapters.enter(sequence.adapter)

    def _leave_batch(self, sequence: Sequence) -> None:
        del self._running[sequence]
        self._plan.pop(sequence, None)
        # The end of a prompt is of less use to others than its beginning: it goes first.
        self.cache.release(reversed(sequence.shared), sequence.private)
        sequence.shared, sequence.private = [], 0
        self.adapters.leave(sequence.adapter)

    def _publish(self, sequence: Sequence) -> None:
        """Offer the prompt blocks that are computed by now to other sequences."""
        computed = sequence.context_tokens - sequence.prefill_left
        full = min(computed // self.settings.block_size, len(sequence.hashes))
        hashes, shared = sequence.hashes, sequence.shared
        while len(shared) < full and self.cache.publish(hashes[len(shared)]):
            sequence.private -= 1
            shared.append(hashes[len(shared)])

    def _count_token(self, sequence: Sequence, now: float) -> None:
        if math.isnan(sequence.first_token_at):
            sequence.first_token_at = now
        sequence.previous_token_at, sequence.last_token_at = sequence.last_token_at, now
        if sequence.output_tokens:
            sequence.generated += 1
        if sequence.generated >= sequence.output_tokens:
            self._leave_batch(sequence)
            sequence.state = SequenceState.FINISHED


def _compute(sequence: Sequence, tokens: int) -> bool:
    """Count computed tokens; True when the sequence gives a token at the end of the step."""
    sequence.prefill_left = max(sequence.prefill_left - tokens, 0)
    return not sequence.prefill_left
