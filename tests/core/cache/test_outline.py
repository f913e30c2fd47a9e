"""The prefix tree in outline: what is shown is true, the rest is counted, and the work is bounded."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from inarch.cache.outline import WIDEST, outline
from inarch.cache.radix import Node, RadixCache


def insert(cache: RadixCache, tokens: list[int], page: int, namespace: str = "") -> Node:
    """Insert a sequence and let go of it; `page` is its first page's id."""
    ids = np.array(tokens, dtype=np.int32)
    match = cache.match(ids, namespace)
    node, done = cache.lock(match), len(match.pages)
    pages = np.arange(page, page + len(ids) - done, dtype=np.int32)
    node, _ = cache.extend(node, ids[done:], pages, namespace)
    cache.unlock(node)
    return node


@given(
    st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=8), max_size=30), st.integers(0, 40)
)
@settings(max_examples=150, deadline=None)
def test_every_shown_node_is_in_the_tree_below_its_parent(
    sequences: list[list[int]], most: int
) -> None:
    cache = RadixCache(1)
    for number, tokens in enumerate(sequences):
        insert(cache, tokens, 1 + 10 * number)
    every = set(cache.nodes())
    shown: set[Node] = set()
    for node, _ in outline(cache, most):
        assert node in every - shown
        assert node.parent in shown | {cache.root}
        shown.add(node)
    assert len(shown) == min(
        most, len(every)
    )  # no node has so many children that some are left out


def test_what_was_used_last_is_shown_first() -> None:
    cache = RadixCache(1)
    for first in range(1, 6):
        insert(cache, [first, 9], 10 * first)
    insert(cache, [2, 9], 90)  # used again
    shown = [int(node.tokens[0]) for node, _ in outline(cache, 3)]
    assert shown == [2, 5, 4]


def test_a_node_with_very_many_children_costs_no_more_than_its_youngest() -> None:
    cache = RadixCache(1)
    for first in range(1, 1000):
        insert(cache, [first], first)
    shown = [int(node.tokens[0]) for node, _ in outline(cache, 500)]
    assert shown == list(range(999, 999 - WIDEST, -1))


def test_what_belongs_to_a_named_namespace_is_marked_down_to_its_leaves() -> None:
    cache = RadixCache(1)
    insert(cache, [1, 2, 3], 10)
    for page, tokens in ((20, [1, 2, 3]), (30, [1, 2, 4])):
        insert(cache, tokens, page, "tenant")
    marks = {int(node.pages[0]): named for node, named in outline(cache, 9)}
    assert marks == {10: False, 20: True, 22: True, 30: True}
