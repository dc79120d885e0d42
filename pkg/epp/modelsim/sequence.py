"""A sequence: one prompt on its way through the simulated engine."""

import math
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass, field
from enum import Enum, auto


class SequenceState(Enum):
    """Where a sequence is in its life."""

    WAITING = auto()
    RUNNING = auto()
    FINISHED = auto()
    ABORTED = auto()


@dataclass(slots=True, eq=False, kw_only=True)
class Sequence:
    """Owned by the step model, which is the only writer of everything from ``state`` on.

    Attributes:
        prompt_tokens: Length of the prompt, >= 1.
        output_tokens: Tokens to generate; 0 ends with the prefill (embeddings).
        hashes: Hashes of the prompt's full blocks, see ``kv_cache.block_hashes``.
        adapter: LoRA adapter, None for the base model.
        finish_reason: What the client is told at the end: ``length`` or ``stop``.
        state: Where it is.
        generated: Tokens generated so far.
        cached_tokens: Prompt tokens found in the prefix cache at the first admission.
        preemptions: How often it lost its blocks.
        arrived_at: Time of ``submit`` on the caller's clock; NaN until then, as the others.
        admitted_at: First admission to the batch.
        first_token_at: End of the step that gave the first token (or finished the prefill).
        last_token_at: End of the step that gave the newest token.
        previous_token_at: The same for the token before.
        prefill_left: Tokens still to compute before the next token can be generated.
        shared: Hashes of the prompt blocks that it holds in common with others.
        private: Number of blocks that it holds alone.
    """

    prompt_tokens: int
    output_tokens: int
    hashes: SequenceOf[int] = ()
    adapter: str | None = None
    finish_reason: str = "length"
    state: SequenceState = SequenceState.WAITING
    generated: int = 0
    cached_tokens: int = 0
    preemptions: int = 0
    arrived_at: float = math.nan
    admitted_at: float = math.nan
    first_token_at: float = math.nan
    last_token_at: float = math.nan
    previous_token_at: float = math.nan
    prefill_left: int = 0
    shared: list[int] = field(default_factory=list)
    private: int = 0

    @property
    def context_tokens(self) -> int:
        """Prompt and generated tokens together."""
        return self.prompt_tokens + self.generated

    @property
    def held_blocks(self) -> int:
        """KV blocks that it holds, shared ones included."""
        return len(self.shared) + self.private

    @property
    def is_over(self) -> bool:
        """Finished or aborted: nothing more comes of it."""
        return self.state in {SequenceState.FINISHED, SequenceState.ABORTED}
