"""What ``/metrics`` says of the process: memory, CPU, file descriptors, garbage collector.

Read at most once a second: reading it costs more than rendering the rest of the page.
"""

import gc
import os
import platform
import resource
from collections.abc import Callable
from pathlib import Path

from epp.modelsim.exposition import Value
from epp.modelsim.metrics_page import MetricsPage

_REFRESH_SECONDS = 1.0
_STATM = Path("/proc/self/statm")
_OPEN_FILES = Path("/proc/self/fd")

_GC_FAMILIES = (
    ("python_gc_objects_collected_total", "Objects that the garbage collector freed.", "collected"),
    ("python_gc_objects_uncollectable_total", "Objects that it could not.", "uncollectable"),
    ("python_gc_collections_total", "Garbage collections by generation.", "collections"),
)
_PROCESS_FAMILIES = (
    ("process_virtual_memory_bytes", "gauge", "Virtual memory in bytes."),
    ("process_resident_memory_bytes", "gauge", "Resident memory in bytes."),
    ("process_start_time_seconds", "gauge", "Start of the process, unix time in seconds."),
    ("process_cpu_seconds_total", "counter", "User and system CPU time in seconds."),
    ("process_open_fds", "gauge", "Open file descriptors."),
    ("process_max_fds", "gauge", "Limit of open file descriptors."),
)


class ProcessStats:
    """The first ten families of the page."""

    def __init__(self, page: MetricsPage, *, wall_clock: Callable[[], float]) -> None:
        self._wall_clock = wall_clock
        self._read_at = 0.0
        self._gc: list[tuple[Value, int, str]] = []
        for name, text, field in _GC_FAMILIES:
            family = page.add_plain(name, "counter", text)
            for generation in range(3):
                sample = Value(name, {"generation": str(generation)})
                family.samples.append(sample)
                self._gc.append((sample, generation, field))
        info = page.add_plain("python_info", "gauge", "Python version.")
        info.samples.append(Value("python_info", _python_labels(), 1.0))
        self._process: dict[str, Value] = {}
        for name, kind, text in _PROCESS_FAMILIES:
            sample = self._process[name] = Value(name, {})
            page.add_plain(name, kind, text).samples.append(sample)
        self._process["process_start_time_seconds"].set(wall_clock())

    def refresh(self) -> None:
        """Read the values again, unless that was just done."""
        now = self._wall_clock()
        if abs(now - self._read_at) < _REFRESH_SECONDS:
            return
        self._read_at = now
        collected = gc.get_stats()
        for sample, generation, field in self._gc:
            sample.set(float(collected[generation][field]))
        times = os.times()
        self._process["process_cpu_seconds_total"].set(round(times.user + times.system, 2))
        self._process["process_max_fds"].set(float(resource.getrlimit(resource.RLIMIT_NOFILE)[0]))
        if _STATM.exists():
            self._read_proc()

    def _read_proc(self) -> None:
        page_bytes = resource.getpagesize()
        virtual, resident = _STATM.read_text().split()[:2]
        self._process["process_virtual_memory_bytes"].set(float(int(virtual) * page_bytes))
        self._process["process_resident_memory_bytes"].set(float(int(resident) * page_bytes))
        self._process["process_open_fds"].set(float(sum(1 for _ in _OPEN_FILES.iterdir())))


def _python_labels() -> dict[str, str]:
    major, minor, patch = platform.python_version_tuple()
    return {
        "implementation": platform.python_implementation(),
        "major": major,
        "minor": minor,
        "patchlevel": patch,
        "version": platform.python_version(),
    }
