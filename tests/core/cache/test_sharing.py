"""Which requests share pages, against the pages themselves and every way to group them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from inarch.cache.radix import Node, RadixCache
from inarch.cache.sharing import shared_prefixes
from inarch.hal.attention import SharedPrefixes

PAGE = 2


def hold(cache: RadixCache, pages: list[int], first: int) -> tuple[Node, np.ndarray]:
    """Lock a sequence whose pages have these contents; new pages are numbered from `first` on."""
    tokens = np.repeat(np.array(pages, dtype=np.int32), PAGE)
    match = cache.match(tokens)
    node, done = cache.lock(match), len(match.pages)
    own = np.arange(first, first + len(pages) - done, dtype=np.int32)
    node, held = cache.extend(node, tokens[done * PAGE :], own)
    return node, np.concatenate((match.pages, held))


def groups_of(shared: SharedPrefixes | None) -> list[tuple[list[int], int]]:
    if shared is None:
        return []
    members = np.split(shared.sequences, shared.indptr[1:-1])
    return [(part.tolist(), int(n)) for part, n in zip(members, shared.tokens, strict=True)]


def groups(*sequences: list[int]) -> list[tuple[list[int], int]]:
    cache = RadixCache(PAGE)
    nodes = [hold(cache, pages, 100 * i)[0] for i, pages in enumerate(sequences)]
    return groups_of(shared_prefixes(nodes, PAGE))


def test_requests_that_begin_alike_are_a_group_of_as_many_tokens_as_all_of_them_share() -> None:
    assert groups([1, 2, 3], [9], [1, 2, 4], [1, 2, 3, 5]) == [([0, 2, 3], 4)]


def test_requests_that_share_nothing_are_in_no_group() -> None:
    assert groups([1, 2], [3], [4, 2]) == []
    assert shared_prefixes([], PAGE) is None


def test_a_request_without_a_prefix_keeps_its_place() -> None:
    cache = RadixCache(PAGE)
    a, b = (hold(cache, [1, 2, i], 100 * i)[0] for i in (3, 4))
    assert groups_of(shared_prefixes([None, a, None, b], PAGE)) == [([1, 3], 4)]


def test_a_longer_prefix_of_fewer_counts_where_it_saves_more() -> None:
    a, b = [1, *[2] * 9], [1, *[3] * 9]
    found = groups(a, b, [*a, 4], b, [1, 5], [1, 6])
    assert sorted(found) == [([0, 2], 20), ([1, 3], 20), ([4, 5], 2)]
    found = groups([1] * 9 + [2], [1] * 9 + [2], [1] * 9 + [3], [1] * 9 + [3])
    assert found == [([0, 1, 2, 3], 18)]


def partitions(things: list[int]) -> Iterator[list[list[int]]]:
    if not things:
        yield []
        return
    for rest in partitions(things[1:]):
        yield [[things[0]], *rest]
        for i in range(len(rest)):
            yield [*rest[:i], [things[0], *rest[i]], *rest[i + 1 :]]


def common(pages: list[np.ndarray]) -> int:
    length = min(len(each) for each in pages)
    equal = np.all([each[:length] == pages[0][:length] for each in pages], axis=0)
    return length if equal.all() else int(equal.argmin())


@settings(max_examples=200, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=5),
    paths=st.lists(st.lists(st.integers(0, 1), max_size=5), min_size=1, max_size=5),
    others=st.lists(st.lists(st.integers(0, 1), max_size=5), max_size=2),
)
def test_groups_share_what_they_say_and_no_others_save_much_more(
    lengths: list[int], paths: list[list[int]], others: list[list[int]]
) -> None:
    """Random trees: at each turn of a path, a run of pages. `others` hold locks too, unasked."""
    cache = RadixCache(PAGE)
    lengths = (lengths * 5)[:5]
    held = [
        hold(cache, [turn for i, turn in enumerate(path) for _ in range(lengths[i])], 1000 * n)
        for n, path in enumerate(paths + others)
    ][: len(paths)]
    pages = [part for _, part in held]
    saved = 0
    seen: list[int] = []
    for members, tokens in groups_of(shared_prefixes([node for node, _ in held], PAGE)):
        assert len(members) > 1
        assert tokens == PAGE * common([pages[i] for i in members]) > 0
        seen += members
        saved += (len(members) - 1) * tokens // PAGE
    assert len(seen) == len(set(seen))
    best = max(
        sum((len(part) - 1) * common([pages[i] for i in part]) for part in partition)
        for partition in partitions(list(range(len(pages))))
    )
    assert saved >= 0.75 * best
