"""LoRA adapters of one simulated engine: which may run together, which are loaded.

At most ``max_adapters`` different adapters share a batch. A loaded adapter that nobody runs keeps
its slot until another one needs it; the least recently used goes first. Pure.
"""

from collections import OrderedDict


class AdapterSlots:
    """The adapter slots and their users. ``None`` is the base model, which needs no slot."""

    __slots__ = ("_loaded", "_running", "max_adapters")

    def __init__(self, max_adapters: int) -> None:
        self.max_adapters = max_adapters
        self._running: dict[str, int] = {}
        self._loaded: OrderedDict[str, None] = OrderedDict()

    @property
    def running(self) -> list[str]:
        """Adapters with running sequences, oldest first."""
        return list(self._running)

    @property
    def loaded(self) -> list[str]:
        """Adapters that occupy a slot, least recently used first."""
        return list(self._loaded)

    def fits(self, adapter: str | None) -> bool:
        """Tell whether a sequence of this adapter may join the batch now."""
        return adapter is None or adapter in self._running or len(self._running) < self.max_adapters

    def enter(self, adapter: str | None) -> bool:
        """Count one more running sequence; True when the adapter had to be loaded."""
        if adapter is None:
            return False
        self._running[adapter] = self._running.get(adapter, 0) + 1
        swap = adapter not in self._loaded
        if swap and len(self._loaded) >= self.max_adapters:
            self._unload_one()
        self._loaded[adapter] = None
        self._loaded.move_to_end(adapter)
        return swap

    def leave(self, adapter: str | None) -> None:
        """Count one running sequence less; the adapter stays loaded."""
        if adapter is None:
            return
        left = self._running[adapter] - 1
        if left:
            self._running[adapter] = left
        else:
            del self._running[adapter]

    def _unload_one(self) -> None:
        idle = next(name for name in self._loaded if name not in self._running)
        del self._loaded[idle]
