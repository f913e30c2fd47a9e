"""Which of the running requests have the same pages, read off the prefix tree.

Two requests share exactly the pages of the nodes above both. One level of sharing is kept for each
request: attention then reads a group's pages once, and each member's other pages by itself, so that
n members with p pages in common save (n - 1) * p. A request has its group at that node above it
which saves most, with the others; further levels would save little, and each costs another merge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from inarch.cache.radix import Node
from inarch.hal.attention import SharedPrefixes


@dataclass(frozen=True, slots=True)
class Group:
    members: list[int]
    pages: int  # that they have in common, from the first on

    @property
    def saved(self) -> int:
        return (len(self.members) - 1) * self.pages


def shared_prefixes(nodes: Sequence[Node | None], page_tokens: int) -> SharedPrefixes | None:
    """Groups among the requests that hold locks on `nodes` (None: on none), by their place there.

    None if none of them share anything.
    """
    groups = [group for group in _best_groups(_homes(nodes)) if len(group.members) > 1]
    if not groups:
        return None
    indptr = np.zeros(len(groups) + 1, dtype=np.int32)
    np.cumsum([len(group.members) for group in groups], out=indptr[1:])
    return SharedPrefixes(
        np.concatenate([np.sort(np.array(group.members, dtype=np.int32)) for group in groups]),
        indptr,
        np.array([group.pages for group in groups], dtype=np.int32) * page_tokens,
    )


def _homes(nodes: Sequence[Node | None]) -> dict[Node, list[int]]:
    """For each request the lowest node that others lock too; those without one are left out."""
    homes: dict[Node, list[int]] = {}
    for request, node in enumerate(nodes):
        home = node
        while home is not None and home.locks == 1:
            home = home.parent
        if home is not None and home.parent is not None:
            homes.setdefault(home, []).append(request)
    return homes


def _best_groups(homes: dict[Node, list[int]]) -> list[Group]:
    """From the leaves to the root, pass on what groups there are; each node may join them anew."""
    depths = _depths(homes)
    found: dict[Node | None, list[Group]] = {
        node: [Group(own, depths[node])] for node, own in homes.items()
    }
    for node in reversed(depths):
        groups = found.pop(node)
        if len(groups) > 1:
            groups = _join(groups, depths[node])
        found.setdefault(node.parent if node.parent in depths else None, []).extend(groups)
    return found.get(None, [])


def _depths(homes: dict[Node, list[int]]) -> dict[Node, int]:
    """Pages down to the end of each node at or above the homes; parents come before children."""
    depths: dict[Node, int] = {}
    for home in homes:
        path = []
        for node in home.path():
            if node in depths:
                break
            path.append(node)
        for node in reversed(path):
            above = depths.get(node.parent, 0) if node.parent is not None else 0
            depths[node] = above + len(node.pages)
    return depths


def _join(groups: list[Group], pages: int) -> list[Group]:
    """Make those that gain by it one group of `pages`; all stay as they are if that saves less."""
    apart = [group for group in groups if group.saved >= len(group.members) * pages]
    joining = [group for group in groups if group.saved < len(group.members) * pages]
    joined = Group([member for group in joining for member in group.members], pages)
    if not joining or joined.saved <= sum(group.saved for group in joining):
        return groups
    return [*apart, joined]
