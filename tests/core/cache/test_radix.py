"""The prefix tree against the plainest oracle: a set of all cached prefixes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inarch.cache.pages import PageAllocator
from inarch.cache.radix import Node, RadixCache


def ids(*tokens: int) -> np.ndarray:
    return np.array(tokens, dtype=np.int32)


def insert(
    cache: RadixCache, tokens: np.ndarray, first_page: int, namespace: str = ""
) -> tuple[Node, np.ndarray]:
    """Insert a whole sequence with pages first_page, first_page + 1, ...; returns lock and pages."""
    match = cache.match(tokens, namespace)
    node = cache.lock(match)
    done = len(match.pages)
    count = len(tokens) // cache.page_tokens - done
    pages = np.arange(first_page, first_page + count, dtype=np.int32)
    rest = tokens[done * cache.page_tokens : (done + count) * cache.page_tokens]
    node, held = cache.extend(node, rest, pages, namespace)
    return node, np.concatenate((match.pages, held))


def test_a_match_is_whole_pages_even_in_the_middle_of_an_edge() -> None:
    cache = RadixCache(2)
    insert(cache, ids(1, 2, 3, 4, 5, 6), 10)
    assert cache.match(ids(1, 2, 3, 4, 9, 9)).pages.tolist() == [10, 11]
    assert cache.match(ids(1, 2, 3, 9)).pages.tolist() == [10]
    assert cache.match(ids(1, 9)).pages.tolist() == []
    assert cache.match(ids(1, 2, 3)).pages.tolist() == [10]


def test_namespaces_share_nothing() -> None:
    cache = RadixCache(1)
    insert(cache, ids(1, 2, 3), 10, "a")
    assert len(cache.match(ids(1, 2, 3), "b").pages) == 0
    assert len(cache.match(ids(1, 2, 3)).pages) == 0
    assert len(cache.match(ids(1, 2, 3), "a").pages) == 3


def test_a_second_insertion_of_the_same_tokens_is_given_the_first_ones_pages() -> None:
    cache = RadixCache(1)
    root = cache.lock(cache.match(ids(1, 2, 3, 4)))
    insert(cache, ids(1, 2, 3, 9), 10)
    _, held = cache.extend(root, ids(1, 2, 3, 4), ids(20, 21, 22, 23))
    assert held.tolist() == [10, 11, 12, 23]


def test_locked_pages_are_never_evicted_and_leaves_go_first() -> None:
    cache = RadixCache(1)
    locked, _ = insert(cache, ids(1, 2), 10)
    free, _ = insert(cache, ids(1, 2, 3, 4), 20)
    cache.unlock(free)
    assert cache.evictable == 2
    assert cache.evict(10).tolist() == [20, 21]
    assert cache.match(ids(1, 2, 3)).pages.tolist() == [10, 11]
    cache.unlock(locked)
    assert sorted(cache.evict(10).tolist()) == [10, 11]
    assert cache.pages == cache.evictable == 0


def test_what_was_given_back_and_is_used_again_is_not_evicted() -> None:
    cache = RadixCache(1)
    node, _ = insert(cache, ids(1, 2), 10)
    cache.unlock(node)
    again = cache.lock(cache.match(ids(1, 2)))
    assert cache.evict(10).tolist() == []
    assert cache.match(ids(1, 2)).pages.tolist() == [10, 11]
    cache.unlock(again)
    assert cache.evict(10).tolist() == [10, 11]


def test_a_whole_tree_can_be_evicted_from_its_leaves_inward() -> None:
    cache = RadixCache(1)
    for tokens, page in ((ids(1, 2), 10), (ids(1, 2, 3, 4), 20), (ids(1, 2, 5), 30)):
        node, _ = insert(cache, tokens, page)
        cache.unlock(node)
    assert sorted(cache.evict(10).tolist()) == [10, 11, 20, 21, 30]
    assert cache.pages == cache.evictable == 0


def test_an_edge_that_lost_its_end_can_grow_again() -> None:
    cache = RadixCache(1)
    node, _ = insert(cache, ids(1, 2, 3, 4), 10)
    cache.unlock(node)
    assert cache.evict(2).tolist() == [12, 13]
    node, held = insert(cache, ids(1, 2, 3, 4), 20)
    assert held.tolist() == [10, 11, 20, 21]
    assert cache.match(ids(1, 2, 3, 9)).pages.tolist() == [10, 11, 20]
    assert cache.pages == 4
    cache.unlock(node)


def test_the_least_recently_used_goes_first_and_only_as_much_as_is_needed() -> None:
    cache = RadixCache(1)
    for start, page in ((1, 10), (2, 20), (3, 30)):
        node, _ = insert(cache, ids(start, 7, 8), page)
        cache.unlock(node)
    cache.unlock(cache.lock(cache.match(ids(1, 7, 8))))  # use the oldest again
    assert cache.evict(2).tolist() == [21, 22]
    assert cache.match(ids(2, 7, 8)).pages.tolist() == [20]
    assert cache.evict(3).tolist() == [20, 31, 32]
    assert cache.match(ids(1, 7, 8)).pages.tolist() == [10, 11, 12]


def test_splitting_an_edge_keeps_the_locks_of_both_parts() -> None:
    cache = RadixCache(1)
    long, _ = insert(cache, ids(1, 2, 3, 4), 10)
    short = cache.lock(cache.match(ids(1, 2)))
    cache.unlock(long)
    assert cache.evict(10).tolist() == [12, 13]
    cache.unlock(short)
    assert sorted(cache.evict(10).tolist()) == [10, 11]


def test_unlocking_twice_is_caught() -> None:
    cache = RadixCache(1)
    node, _ = insert(cache, ids(1), 10)
    cache.unlock(node)
    with pytest.raises(AssertionError, match="more often"):
        cache.unlock(node)


SEQUENCES = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12), max_size=12)


@given(sequences=SEQUENCES, query=st.lists(st.integers(0, 2), max_size=12), page=st.integers(1, 3))
@settings(deadline=None, derandomize=True)
def test_a_match_is_the_longest_prefix_ever_inserted(
    sequences: list[list[int]], query: list[int], page: int
) -> None:
    cache, known, next_page = RadixCache(page), {(): 0}, 1
    for tokens in sequences:
        node, held = insert(cache, ids(*tokens), next_page)
        next_page += len(tokens)
        for count, number in enumerate(held.tolist(), start=1):
            prefix = tuple(tokens[: count * page])
            assert known.setdefault(prefix, number) == number, "one prefix, two pages"
        cache.unlock(node)
    expected = [
        known[tuple(query[: (i + 1) * page])]
        for i in range(len(query) // page)
        if tuple(query[: (i + 1) * page]) in known
    ]
    assert cache.match(ids(*query)).pages.tolist() == expected
    assert cache.pages == len(known) - 1


def test_the_allocator_hands_out_every_page_once_and_never_the_null_page() -> None:
    pool = PageAllocator(6)
    pages = pool.take(5)
    assert sorted(pages.tolist()) == [1, 2, 3, 4, 5]
    assert pool.free == 0
    pool.give(pages[:2])
    assert sorted(pool.take(2).tolist()) == sorted(pages[:2].tolist())
    with pytest.raises(AssertionError):
        pool.take(1)
