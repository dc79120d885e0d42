"""The KV cache of one simulated engine: block accounting with a prefix cache.

Owner of every block. Blocks come in two kinds: *shared* ones carry the hash of a full prompt block
and a reference count, *private* ones belong to one sequence. A shared block without references is
*idle*: still a prefix hit, but free to be evicted, the least recently released first.

Invariants: ``0 <= used_blocks <= num_blocks`` and ``used + idle <= num_blocks``, after every call.
Pure: no clock, no I/O.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence

BYTES_PER_TOKEN = 4
"""The estimate behind every token count here: four bytes of text are a token."""


def count_tokens(prompt: bytes) -> int:
    """Estimate the tokens of a prompt; at least 1."""
    return max(1, -(-len(prompt) // BYTES_PER_TOKEN))


def block_hashes(prompt: bytes, *, block_size: int, adapter: str | None) -> tuple[int, ...]:
    """Hash the full blocks of a prompt, each together with everything before it.

    Args:
        prompt: Prompt text, four bytes a token.
        block_size: Tokens per block.
        adapter: LoRA adapter; blocks of different adapters never match.
    """
    width = block_size * BYTES_PER_TOKEN
    hashes = []
    parent = hash(("adapter", adapter))
    for end in range(width, len(prompt) + 1, width):
        parent = hash((parent, prompt[end - width : end]))
        hashes.append(parent)
    return tuple(hashes)


class KvCache:
    """Blocks in use, idle blocks, and what is free."""

    __slots__ = ("_idle", "_private", "_references", "num_blocks")

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self._references: dict[int, int] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()
        self._private = 0

    @property
    def used_blocks(self) -> int:
        """Blocks that some sequence holds."""
        return len(self._references) + self._private

    @property
    def free_blocks(self) -> int:
        """Blocks that can be handed out, idle ones included."""
        return self.num_blocks - self.used_blocks

    @property
    def idle_blocks(self) -> int:
        """Cached blocks that nobody holds."""
        return len(self._idle)

    @property
    def usage_ratio(self) -> float:
        """Used share of the cache, 0 to 1; idle blocks count as free, as in vLLM."""
        return self.used_blocks / self.num_blocks

    def match(self, hashes: Sequence[int], *, limit: int) -> int:
        """Count the leading blocks that are cached, at most ``limit``."""
        count = 0
        for block in hashes[:limit]:
            if block not in self._references and block not in self._idle:
                break
            count += 1
        return count

    def take(self, shared: Sequence[int], private: int) -> bool:
        """Hold cached blocks and new private ones, all or nothing.

        Args:
            shared: Hashes that ``match`` has just found.
            private: Number of new blocks.

        Returns:
            False when there are too few free blocks; then nothing changed.
        """
        revived = sum(1 for block in shared if block in self._idle)
        if revived + private > self.free_blocks:
            return False
        for block in shared:
            self._idle.pop(block, None)
            self._references[block] = self._references.get(block, 0) + 1
        self._private += private
        self._evict()
        return True

    def publish(self, block: int) -> bool:
        """Turn one private block into a shared one under this hash.

        Returns:
            False when the hash is cached already; the caller's block then stays private.
        """
        if block in self._references or block in self._idle:
            return False
        self._private -= 1
        self._references[block] = 1
        return True

    def release(self, shared: Iterable[int], private: int) -> None:
        """Give blocks back; shared ones in the order in which they may be evicted."""
        self._private -= private
        for block in shared:
            left = self._references[block] - 1
            if left:
                self._references[block] = left
            else:
                del self._references[block]
                self._idle[block] = None

    def _evict(self) -> None:
        while self._idle and self.used_blocks + len(self._idle) > self.num_blocks:
            self._idle.popitem(last=False)
