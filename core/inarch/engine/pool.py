"""The KV memory as requests hold it: a row of pages each, and prefixes that several share in a tree.

What no running request needs stays in the tree as cache until pages are short. A model with recurrent
states has slots for them beside the pages: see states.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from inarch.cache.pages import PageAllocator
from inarch.cache.radix import Match, Node, RadixCache
from inarch.cache.states import StateSlots
from inarch.engine.request import Request
from inarch.engine.states import RequestStates, StateRuns
from inarch.engine.table import RequestTable


class Pool:
    """Rows, pages and the prefix tree, which change together."""

    def __init__(
        self,
        *,
        pages: int,
        page_tokens: int,
        rows: int,
        row_tokens: int,
        prefix_cache: bool,
        state_slots: int = 0,
        long_from: int | None = None,
        long_shift: int = 0,
    ) -> None:
        """rows: most requests at once. row_tokens: most tokens of one. state_slots: of a model with
        recurrent states, the null slot included; at least one more than rows. long_from:
        `Description`'s; the positions of requests with more tokens are shifted."""
        self.page_tokens = page_tokens
        self.table = RequestTable(rows, self.pages_of(row_tokens) + 1)
        self.allocator = PageAllocator(pages)
        slots = StateSlots(state_slots) if state_slots else None
        self.cache = RadixCache(page_tokens, slots)
        self.states: RequestStates | None = None
        if slots is not None:
            assert slots.total >= rows
            self.states = RequestStates(slots, self.table, page_tokens, checkpoints=prefix_cache)
        self.caches_prefixes = prefix_cache
        self.long_from, self._long_shift = long_from, long_shift
        if long_from is not None:
            self.table.shifts = np.zeros(rows + 1, dtype=np.int64)

    @property
    def capacity(self) -> int:
        """Tokens of the longest request that fits."""
        return self.allocator.total * self.page_tokens

    @property
    def room(self) -> int:
        """Pages that are free or could be made so."""
        return self.allocator.free + self.cache.evictable

    def pages_of(self, tokens: int) -> int:
        return -(-tokens // self.page_tokens)

    def make_room(self, pages: int) -> bool:
        """Evict cached prefixes until `pages` are free; False if that is not enough."""
        missing = pages - self.allocator.free
        if missing > 0:
            self.allocator.give(self.cache.evict(missing))
        return self.allocator.free >= pages

    def clear_cache(self) -> int:
        """Forget every prefix that no running request uses; returns how many pages that freed."""
        pages = self.cache.evict(self.cache.evictable)
        self.allocator.give(pages)
        return len(pages)

    # ---- what a request finds ----

    def match(self, request: Request) -> Match:
        return self.cache.match(request.tokens(0, _cacheable(request)), request.namespace)

    def usable(self, match: Match) -> Match:
        """What need not be computed of a match: all of it, or up to a recurrent model's checkpoint."""
        return match if self.states is None else self.cache.resumable(match)

    def soon_longer(self, request: Request, match: Match, prefilling: Iterable[Request]) -> bool:
        """Whether a prompt being computed will soon have more of this one's prefix in the tree."""
        if not self.caches_prefixes or match.used < len(match.node.pages):
            return False
        start = len(match.pages) * self.page_tokens
        end = start + self.page_tokens
        return any(
            other.node is match.node
            and other.namespace == request.namespace
            and end <= min(other.known, _cacheable(request))
            and np.array_equal(other.tokens(start, end), request.tokens(start, end))
            for other in prefilling
        )

    # ---- what a running request holds ----

    def open(self, request: Request, match: Match, node: Node, found: Match) -> bool:
        """Give a request a row that begins with its match, of which it has locked `node`.

        found: what `match` gave, of which the match may be a part. False: no state can be had now.
        """
        places = None
        if self.states is not None:
            places = self.states.slots.begin(node)
            if places is None:
                return False
        limit = len(request.prompt) + request.max_tokens - 1
        if self.long_from is not None and not request.is_long:
            limit = min(limit, self.long_from)
        row = self.table.open(request, computed=match.tokens(self.page_tokens), limit=limit)
        if self.table.shifts is not None:
            self.table.shifts[row] = self._long_shift if request.is_long else 0
        self.table.append_pages(row, match.pages)
        request.node, request.tree_pages = node, len(match.pages)
        if self.states is not None and places is not None:
            self.states.open(row, places, found.tokens(self.page_tokens))
        return True

    def grow(self, request: Request, budget: int) -> int:
        """Give a prompt's next chunk its pages; returns its tokens: what budget and memory allow."""
        table, row = self.table, request.row
        start = int(table.computed[row])
        held = int(table.num_pages[row])
        length = min(request.known - start, budget)
        missing = max(self.pages_of(start + length) - held, 0)
        self.make_room(missing)
        missing = min(missing, self.allocator.free)
        if missing:
            table.append_pages(row, self.allocator.take(missing))
        return min(length, (held + missing) * self.page_tokens - start)

    def missing(self, request: Request) -> int:
        """Pages that what is known of a running request still lacks."""
        return max(self.pages_of(request.known) - int(self.table.num_pages[request.row]), 0)

    def plan_states(
        self, decode_rows: np.ndarray, chunks: Sequence[tuple[Request, int]]
    ) -> StateRuns | None:
        """Where the states of a step's sequences are read and written; before their tokens count."""
        return None if self.states is None else self.states.plan(decode_rows, chunks)

    def launched(self) -> None:
        """The planned step was launched: later ones may write to the states that it reads."""
        if self.states is not None:
            self.states.slots.settle()

    def share(self, request: Request) -> None:
        """Hand the tree every full page of tokens whose ids are known and whose KV is launched."""
        if not self.caches_prefixes:
            return
        if self.states is not None:
            for tokens, slot in self.states.take_left(request.row):
                self._share(request, tokens // self.page_tokens)
                assert request.node is not None
                self.states.slots.keep(request.node, slot)
        computed = int(self.table.computed[request.row])
        self._share(request, min(computed, request.known) // self.page_tokens)

    def _share(self, request: Request, end: int) -> None:
        """Hand the tree a request's first `end` pages, as far as it has not got them."""
        row, start = request.row, request.tree_pages
        if end <= start:
            return
        assert request.node is not None
        own = self.table.row_pages(row, start, end)
        tokens = request.tokens(start * self.page_tokens, end * self.page_tokens)
        request.node, held = self.cache.extend(request.node, tokens, own, request.namespace)
        request.tree_pages = end
        doubled = held != own
        if doubled.any():
            self.table.replace_pages(row, start, held)
            self.allocator.give(own[doubled])

    def close(self, request: Request) -> None:
        """Take the row and the pages from a request; what can be shared becomes cache."""
        row = request.row
        if self.states is not None:
            self.states.close(row, request.known)
        self.share(request)
        self.allocator.give(
            self.table.row_pages(row, request.tree_pages, int(self.table.num_pages[row]))
        )
        assert request.node is not None
        self.cache.unlock(request.node)
        request.node, request.tree_pages = None, 0
        self.table.close(request)


def _cacheable(request: Request) -> int:
    """Tokens that need not be computed: the last one's logits give the next token, and those of
    others, or their hidden states, may be wanted too."""
    first = request.unscored if request.wanted is None else request.wanted.start
    return min(request.known - 1, first)
