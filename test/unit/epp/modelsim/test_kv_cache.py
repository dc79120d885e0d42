"""Block accounting: prefix hits, references, eviction."""

import pytest

from epp.modelsim.kv_cache import KvCache, block_hashes, count_tokens


@pytest.mark.parametrize(
    ("prompt", "want"),
    [
        pytest.param(b"", 1, id="empty-counts-one"),
        pytest.param(b"abcd", 1, id="four-bytes"),
        pytest.param(b"abcde", 2, id="rounded-up"),
        pytest.param(b"x" * 4000, 1000, id="long"),
    ],
)
def test_tokens_are_four_bytes(prompt: bytes, want: int) -> None:
    assert count_tokens(prompt) == want


def test_only_full_blocks_are_hashed() -> None:
    assert block_hashes(b"x" * 15, block_size=4, adapter=None) == ()
    assert len(block_hashes(b"x" * 47, block_size=4, adapter=None)) == 2


def test_equal_prefixes_have_equal_hashes_until_they_differ() -> None:
    left = block_hashes(b"a" * 32 + b"b" * 16 + b"c" * 16, block_size=4, adapter=None)
    right = block_hashes(b"a" * 32 + b"x" * 16 + b"c" * 16, block_size=4, adapter=None)

    assert left[:2] == right[:2]
    assert left[2] != right[2]
    assert left[3] != right[3]


def test_adapters_do_not_share_blocks() -> None:
    base = block_hashes(b"a" * 32, block_size=4, adapter=None)
    sql = block_hashes(b"a" * 32, block_size=4, adapter="sql")

    assert not set(base) & set(sql)


def test_released_blocks_stay_cached_but_count_as_free() -> None:
    cache = KvCache(4)
    cache.take((), 2)
    cache.publish(11)
    cache.publish(12)

    cache.release([12, 11], 0)

    assert (cache.used_blocks, cache.free_blocks, cache.idle_blocks) == (0, 4, 2)
    assert cache.match([11, 12, 13], limit=3) == 2


def test_the_least_recently_released_block_is_evicted_first() -> None:
    cache = KvCache(2)
    cache.take((), 2)
    cache.publish(11)
    cache.publish(12)
    cache.release([12, 11], 0)

    cache.take((), 1)

    assert cache.match([11], limit=1) == 1
    assert cache.match([12], limit=1) == 0


def test_a_shared_block_is_held_until_its_last_user_leaves() -> None:
    cache = KvCache(4)
    cache.take((), 1)
    cache.publish(11)
    cache.take((11,), 0)

    cache.release([11], 0)

    assert cache.used_blocks == 1
    cache.release([11], 0)
    assert cache.used_blocks == 0


def test_taking_too_much_changes_nothing() -> None:
    cache = KvCache(3)
    cache.take((), 1)
    cache.publish(11)
    cache.release([11], 0)

    taken = cache.take((11,), 3)

    assert not taken
    assert (cache.used_blocks, cache.idle_blocks) == (0, 1)


def test_a_hash_that_is_cached_already_is_not_published_twice() -> None:
    cache = KvCache(4)
    cache.take((), 2)

    assert cache.publish(11)
    assert not cache.publish(11)
    assert cache.used_blocks == 2
