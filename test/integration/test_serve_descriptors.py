"""``epp serve`` takes as many file descriptors as it may have."""

import resource
from pathlib import Path

import pytest

from epp.testing.serve import Serve


@pytest.fixture
def few_descriptors():
    """A soft limit as many systems set it, for children of this test."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, before[1]))
    yield before[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def test_the_soft_limit_is_raised_to_the_hard_one(tmp_path, few_descriptors):
    arguments = ("--endpoint", "127.0.41.1:9", "--secure-serving=false", "--drain-timeout=0")
    async with Serve(tmp_path, *arguments) as epp:
        limits = Path(f"/proc/{epp.process_id}/limits").read_text()

    [line] = [line for line in limits.splitlines() if line.startswith("Max open files")]
    soft = int(line.split()[3])
    assert soft > 1024
    assert soft == min(few_descriptors, 1 << 20) or few_descriptors == resource.RLIM_INFINITY
