"""Hand cached prefixes to another engine, and take them over from one: whatever hardware each has.

What one engine computed of a prompt another then finds in its prefix cache: the ground for prefill on
one kind of hardware and decode on another. Both ways happen between two steps; the device runs them
in order with its other work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch

from inarch.cache.radix import Match
from inarch.engine.kv_bytes import Origin, Prefix, pack, unpack
from inarch.engine.pool import Pool
from inarch.engine.request import LONG
from inarch.engine.runner import Runner
from inarch.errors import InvalidRequestError, OutOfMemoryError
from inarch.hal.kv import CanonicalPages

# As drivers say it of pinned memory, and torch of a CPU's.
SHORT = ("out of memory", "can't allocate memory")


class Prefixes:
    """The prefix cache of one engine, seen from other engines."""

    def __init__(self, pool: Pool, runner: Runner, origin: Callable[[], Origin]) -> None:
        """origin: what this engine loaded; it takes a moment, and is asked when first needed."""
        self._pool, self._runner, self._origin = pool, runner, origin

    def export_prefix(self, tokens: np.ndarray, namespace: str = "") -> bytes:
        """As much of `tokens` (int32) as the cache holds: whole pages from the first token on.

        Raises InvalidRequestError if that is nothing, or the model's KV cannot be handed over, and
        OutOfMemoryError, as `import_prefix` does.
        """
        self._check_kind()
        long_from = self._pool.long_from
        is_long = long_from is not None and len(tokens) > long_from
        match = self._pool.cache.match(tokens, _space(namespace, is_long=is_long))
        size = self._pool.page_tokens
        if not len(match.pages):
            raise InvalidRequestError(
                f"of these {len(tokens)} tokens no page (of {size}) is in the cache: generate with "
                "them first, and mind that a page is cached when it is full"
            )
        with _memory(f"a prefix of {match.tokens(size)} tokens cannot be read"):
            data = self._runner.export_pages(match.pages)
            return pack(Prefix(tokens[: match.tokens(size)], data, is_long), self._origin())

    def import_prefix(self, data: bytes, namespace: str = "") -> int:
        """Put a prefix into the cache; returns how many of its tokens the cache holds now.

        These are whole pages, and no more than there is room for without touching running requests.
        Raises InvalidRequestError, with the reason, if the bytes do not fit what runs here, and
        OutOfMemoryError if there is no memory to copy them; nothing is changed then.
        """
        self._check_kind()
        with _memory(f"a prefix of {len(data) >> 20} MiB cannot be taken"):
            return self._import(unpack(data, self._origin()), namespace)

    def _import(self, prefix: Prefix, namespace: str) -> int:
        space = _space(namespace, is_long=prefix.is_long)
        size = self._pool.page_tokens
        whole = prefix.tokens[: len(prefix.tokens) // size * size]
        match = self._pool.cache.match(whole, space)
        return self._add(whole, prefix.data, match, space)

    def _add(self, whole: np.ndarray, data: CanonicalPages, match: Match, space: str) -> int:
        """Pages for what follows a match; the match is locked, or room might be made of it."""
        pool, size, start = self._pool, self._pool.page_tokens, len(match.pages)
        node = pool.cache.lock(match)
        try:
            wanted = len(whole) // size - start
            pool.make_room(wanted)
            pages = pool.allocator.take(min(wanted, pool.allocator.free))
            end = start + len(pages)
            if not len(pages):
                return end * size
            part = slice(start * size, end * size)
            try:
                self._runner.import_pages(pages, [(k[part], v[part]) for k, v in data])
            except BaseException:
                pool.allocator.give(pages)
                raise
            node, _ = pool.cache.extend(node, whole[part], pages, space)
        finally:
            pool.cache.unlock(node)
        return end * size

    def _check_kind(self) -> None:
        if not self._pool.caches_prefixes:
            raise InvalidRequestError(
                "this engine keeps no prefixes: it was started with --no-prefix-cache, or its model "
                "attends to both sides"
            )
        if self._pool.states is not None:
            raise InvalidRequestError(
                "this model keeps a recurrent state beside its pages, and a prefix is of no use "
                "without it: states are not handed to other engines yet"
            )


@contextmanager
def _memory(failure: str) -> Iterator[None]:
    """The memory that is short is beside the KV cache, which was given its own before."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not _is_short(error):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise OutOfMemoryError(
            f"{failure}, for which memory beside the KV cache is short: {reason}. Hand over a shorter "
            "prefix, or start the engine with a lower --memory-share"
        ) from error


def _is_short(error: Exception) -> bool:
    """Whether memory of any kind is: torch has a class for its allocators of devices alone."""
    known = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return known or any(words in str(error) for words in SHORT)


def _space(namespace: str, *, is_long: bool) -> str:
    return namespace + LONG if is_long else namespace
