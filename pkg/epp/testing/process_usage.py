"""What a process of this machine uses, as Linux counts it."""

import os
from pathlib import Path


def resident_mb(process_id: int) -> float:
    """Resident memory, in units of 1,048,576 bytes. Raises ProcessLookupError."""
    for line in _read(process_id, "status").splitlines():
        if line.startswith("VmRSS:"):
            return float(line.split()[1]) / 1024
    raise ProcessLookupError(f"process {process_id} has ended")


def cpu_seconds(process_id: int) -> float:
    """User and system time so far. Raises ProcessLookupError."""
    fields = _read(process_id, "stat").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _read(process_id: int, name: str) -> str:
    try:
        return Path(f"/proc/{process_id}/{name}").read_text()
    except FileNotFoundError as exc:
        raise ProcessLookupError(f"there is no process {process_id}") from exc
