"""Recorded pages and a scripted model server, for the tests of scraping."""

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

_RECORDINGS = Path(__file__).parents[3] / "testdata/metrics/vllm-0.32"


@pytest.fixture(scope="session")
def recorded_page() -> Callable[[str], bytes]:
    """A page of a real vLLM 0.32: idle, load-a, load-b or after-load."""

    def read(name: str) -> bytes:
        return gzip.decompress((_RECORDINGS / f"metrics-{name}.txt.gz").read_bytes())

    return read
