import pytest

from epp.testing.pool_world import PoolWorld


@pytest.fixture
def world() -> PoolWorld:
    return PoolWorld()
