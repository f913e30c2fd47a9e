"""The prefix tree in outline, for people who watch it grow.

What was used last comes first, and what is looked at is bounded: a tree of a million nodes costs as
much as one of a hundred.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from itertools import islice

from inarch.cache.radix import Node, RadixCache

WIDEST = 16  # children of one node that are looked at, the youngest first


def outline(cache: RadixCache, most: int) -> Iterator[tuple[Node, bool]]:
    """At most `most` nodes, parents before children, and of each whether its namespace has a name.

    Among those that can come next the one that was used last does.
    """
    page_bytes = 4 * cache.page_tokens
    heap = [(-node.last_used, id(node), node) for node in youngest(cache.root)]
    heapq.heapify(heap)
    named: set[Node] = set()
    while heap and most > 0:
        most -= 1
        _, _, node = heapq.heappop(heap)
        if len(node.key) > page_bytes or node.parent in named:  # the first key holds the namespace
            named.add(node)
        yield node, node in named
        for child in youngest(node):
            heapq.heappush(heap, (-child.last_used, id(child), child))


def youngest(node: Node) -> Iterator[Node]:
    return islice(reversed(node.children.values()), WIDEST)
