"""The prefix tree: which KV pages hold which token sequences, so that equal beginnings are shared.

An edge carries whole pages: its tokens and their page ids as two numpy arrays. A running request
holds a lock on the node where its shared part ends, which keeps that node and all above it. What
nobody locks is a cache, evicted from the leaves inward, least recently used first. Matching,
insertion and eviction cost what the touched path costs; the tree is never scanned.
After Zheng et al., 2023, "SGLang", arXiv:2312.07104.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from inarch.cache.states import StateSlots
from inarch.hal.state import NULL_SLOT

EMPTY = np.empty(0, dtype=np.int32)


class Node:
    """An edge of the tree and the node at its end. `locks` counts requests at or below it."""

    __slots__ = (
        "children",
        "key",
        "last_used",
        "locks",
        "pages",
        "parent",
        "queued",
        "state",
        "tokens",
    )

    def __init__(
        self, parent: Node | None, key: bytes, tokens: np.ndarray, pages: np.ndarray
    ) -> None:
        self.parent = parent
        self.key = key  # under which the parent knows it
        self.tokens = tokens  # int32 [pages * page_tokens]
        self.pages = pages  # int32 [pages]
        self.children: dict[bytes, Node] = {}
        self.locks = 0
        self.last_used = 0
        self.queued = False  # has an entry in the eviction queue
        self.state = NULL_SLOT  # of a recurrent model: the slot of the state at its end

    @property
    def is_leaf(self) -> bool:
        return not self.children

    def path(self) -> Iterator[Node]:
        """This node and those above it, without the root."""
        node = self
        while node.parent is not None:
            yield node
            node = node.parent


@dataclass(frozen=True, slots=True)
class Match:
    """The longest cached beginning of a sequence: whole pages, down to a place within `node`."""

    node: Node
    used: int  # pages of `node` that match; the node's own length, or less
    pages: np.ndarray  # int32, of the whole path

    def tokens(self, page_tokens: int) -> int:
        return len(self.pages) * page_tokens


class RadixCache:
    """A prefix tree over pages of `page_tokens` tokens.

    Sequences of different namespaces share nothing: a namespace is part of the first edge's key.
    """

    def __init__(self, page_tokens: int, states: StateSlots | None = None) -> None:
        """states: of a recurrent model; a node's goes with the node's last page."""
        self.page_tokens = page_tokens
        self._states = states
        self.pages = 0  # held by the tree
        self.evictable = 0  # of these, not locked
        self._root = Node(None, b"", EMPTY, EMPTY)
        self._clock = itertools.count(1)
        self._queue: list[tuple[int, int, Node]] = []  # (last_used, tie-break, leaf)

    @property
    def root(self) -> Node:
        return self._root

    def match(self, tokens: np.ndarray, namespace: str = "") -> Match:
        """Find the longest cached prefix of `tokens`, in whole pages. Changes nothing."""
        node, key = self._root, namespace.encode() + self._key(tokens, 0)
        found, used, at = [], 0, 0
        while at + self.page_tokens <= len(tokens):
            child = node.children.get(key)
            if child is None:
                break
            node, used = child, self._common_pages(child.tokens, tokens[at:])
            found.append(child.pages[:used])
            at += used * self.page_tokens
            if used < len(child.pages):
                break
            key = self._key(tokens, at)
        return Match(node, used, np.concatenate(found) if found else EMPTY)

    def resumable(self, match: Match) -> Match:
        """The part of a match at whose end there is a state to go on from."""
        node, pages = match.node, len(match.pages)
        if match.used < len(node.pages):
            assert node.parent is not None
            node, pages = node.parent, pages - match.used
        while node.parent is not None and node.state == NULL_SLOT:
            node, pages = node.parent, pages - len(node.pages)
        return Match(node, len(node.pages), match.pages[:pages])

    def lock(self, match: Match) -> Node:
        """Keep what was matched until `unlock` of the node that is returned.

        The match must be fresh: nothing was inserted or evicted since.
        """
        node = match.node
        if node.parent is not None and match.used < len(node.pages):
            node = self._split(node, match.used)
        now = next(self._clock)
        for each in node.path():
            each.last_used = now
            self._lock_one(each)
        return node

    def unlock(self, node: Node) -> None:
        """Give a lock back; what nobody else locks becomes evictable."""
        for each in node.path():
            each.locks -= 1
            assert each.locks >= 0, "a node was unlocked more often than locked"
            if each.locks == 0:
                self.evictable += len(each.pages)
                self._enqueue(each)

    def extend(
        self, node: Node, tokens: np.ndarray, pages: np.ndarray, namespace: str = ""
    ) -> tuple[Node, np.ndarray]:
        """Insert whole pages below a locked node and move the lock to their end.

        The tree takes over `pages`. Returns the node that is locked now and the pages that the tree
        holds for `tokens`: where they differ from `pages`, somebody else had inserted the same
        tokens before, and the caller still owns its own.
        """
        held = []
        now = next(self._clock)
        at = 0  # pages done
        while at < len(pages):
            rest = tokens[at * self.page_tokens :]
            key = self._key(rest, 0) if node.parent else namespace.encode() + self._key(rest, 0)
            child = node.children.get(key)
            if child is None:
                child = Node(node, key, rest.copy(), pages[at:].copy())
                node.children[key] = child
                self.pages += len(child.pages)
                self.evictable += len(child.pages)  # until the lock below
            else:
                common = self._common_pages(child.tokens, rest)
                if common < len(child.pages):
                    child = self._split(child, common)
            node = child
            node.last_used = now
            self._lock_one(node)
            held.append(node.pages)
            at += len(node.pages)
        return node, np.concatenate(held) if held else EMPTY

    def evict(self, count: int) -> np.ndarray:
        """Give up at least `count` pages if that many are evictable; returns their ids."""
        freed: list[np.ndarray] = []
        missing = count
        while missing > 0 and self._queue:
            stamp, _, node = heapq.heappop(self._queue)
            node.queued = False
            if node.locks or not node.is_leaf or node.parent is None:
                continue  # queued again when it becomes an evictable leaf
            if stamp != node.last_used:
                self._enqueue(node)
                continue
            cut = max(len(node.pages) - missing, 0)
            freed.append(node.pages[cut:])
            missing -= len(node.pages) - cut
            self._trim(node, cut)
        pages = np.concatenate(freed) if freed else EMPTY
        self.pages -= len(pages)
        self.evictable -= len(pages)
        return pages

    def nodes(self) -> Iterator[Node]:
        """Every node, for tests and debugging."""
        stack = list(self._root.children.values())
        while stack:
            node = stack.pop()
            yield node
            stack.extend(node.children.values())

    def _trim(self, node: Node, keep: int) -> None:
        """Drop the pages of a leaf from `keep` on; the whole node if nothing is kept."""
        if node.state != NULL_SLOT:
            assert self._states is not None
            self._states.drop(node)
        if keep:
            node.pages = node.pages[:keep].copy()
            node.tokens = node.tokens[: keep * self.page_tokens].copy()
            self._enqueue(node)
            return
        parent = node.parent
        assert parent is not None
        del parent.children[node.key]
        node.parent = None
        if parent.locks == 0 and parent.is_leaf:
            self._enqueue(parent)

    def _split(self, node: Node, used: int) -> Node:
        """Cut an edge after `used` pages; `node` stays the lower part. Returns the upper part."""
        assert node.parent is not None
        assert 0 < used < len(node.pages)
        cut = used * self.page_tokens
        upper = Node(node.parent, node.key, node.tokens[:cut].copy(), node.pages[:used].copy())
        upper.locks, upper.last_used = node.locks, node.last_used
        node.parent.children[node.key] = upper
        node.tokens, node.pages = node.tokens[cut:].copy(), node.pages[used:].copy()
        node.parent, node.key = upper, self._key(node.tokens, 0)
        upper.children[node.key] = node
        return upper

    def _lock_one(self, node: Node) -> None:
        if node.locks == 0:
            self.evictable -= len(node.pages)
        node.locks += 1

    def _enqueue(self, node: Node) -> None:
        if node.is_leaf and not node.queued and node.parent is not None:
            node.queued = True
            heapq.heappush(self._queue, (node.last_used, next(self._clock), node))

    def _key(self, tokens: np.ndarray, at: int) -> bytes:
        return tokens[at : at + self.page_tokens].tobytes()

    def _common_pages(self, a: np.ndarray, b: np.ndarray) -> int:
        size = min(len(a), len(b))
        differ = a[:size] != b[:size]
        first = int(differ.argmax()) if size else 0
        equal = first if size and differ[first] else size
        return equal // self.page_tokens
