"""Ragged batches over pages, and what is in the pages: what every attention is tested on.

Pages lie in any order. Whatever no query may see is NaN: pages that nobody names, and the places
behind a sequence's last token.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from inarch.conformance.calls import normal
from inarch.conformance.case import Failed
from inarch.conformance.memory import same
from inarch.hal.attention import AttentionBatch, SharedPrefixes
from inarch.hal.kv import NULL_PAGE, CanonicalPages, KVSpec, KVState, KVStore

FOREIGN = 3  # pages of the pool that no sequence has
SPARE_ROWS = 2


@dataclass(frozen=True)
class Sequence_:
    """parents: of its new tokens, as `AttentionBatch.tree_parent`. shares: pages of the one before."""

    prefix: int
    parents: tuple[int, ...]
    padding: bool = False
    shares: int = 0

    @property
    def tokens(self) -> int:
        return self.prefix + len(self.parents)


def chain(prefix: int, queries: int) -> Sequence_:
    return Sequence_(prefix, tuple(range(-1, queries - 1)))


PADDING = Sequence_(0, (-1,), padding=True)


@dataclass(frozen=True, eq=False)
class Scene:
    """A batch and the content of the pool before it, page 1 first: [tokens, ...] of each layer."""

    sequences: tuple[Sequence_, ...]
    batch: AttentionBatch
    page_tokens: int
    pool: int  # pages, the null page included
    content: CanonicalPages

    @property
    def real(self) -> Tensor:
        """bool [T]: which query tokens are no padding."""
        return torch.cat([torch.full((len(s.parents),), not s.padding) for s in self.sequences])

    def places(self, s: int, tokens: np.ndarray) -> Tensor:
        """Where tokens of sequence s lie in the content."""
        size, row = self.page_tokens, self.batch.page_table[self.batch.rows[s]]
        pages = row[tokens // size].astype(np.int64)
        return torch.from_numpy((pages - 1) * size + tokens % size)

    def history(self, s: int, layer: int) -> tuple[Tensor, Tensor]:
        """K, V [prefix, ...] of sequence s."""
        k, v = self.content[layer]
        places = self.places(s, np.arange(self.sequences[s].prefix))
        return k[places], v[places]

    def load(self, store: KVStore) -> KVState:
        kv = store.allocate(self.pool)
        return store.import_pages(kv, np.arange(1, self.pool), self.content)

    def check_pages(
        self, store: KVStore, kv: KVState, layer: int, new: tuple[Tensor, Tensor], tolerance: float
    ) -> None:
        """Raise Failed unless the new tokens' K and V [T, ...] were written, and nothing else.

        Places behind a sequence's last token are its own to spoil.
        """
        found = store.export_pages(kv, np.arange(1, self.pool))
        for index, (before, after) in enumerate(zip(self.content, found, strict=True)):
            written = self._written() if index == layer else []
            for which, old, got, values in zip("kv", before, after, new, strict=True):
                where = f"{which} of layer {index}"
                expected, exact = old.double(), torch.ones(len(old), dtype=torch.bool)
                for places, tokens in written:
                    expected[places] = values[tokens].double()
                    exact[places] = False
                counted = ~self._behind() if index == layer else torch.ones_like(exact)
                self._compare(where, got.double(), expected, exact & counted, 0.0)
                self._compare(where, got.double(), expected, ~exact, tolerance)

    def _compare(
        self, where: str, got: Tensor, expected: Tensor, rows: Tensor, tolerance: float
    ) -> None:
        close = (got - expected).abs() <= tolerance * (1 + expected.abs())
        wrong = ~(same(got, expected) | close).flatten(1).all(1) & rows
        if wrong.any():
            place = int(wrong.nonzero()[0])
            page, offset = 1 + place // self.page_tokens, place % self.page_tokens
            names = [s for s in range(len(self.sequences)) if page in self._pages(s)]
            whose = f"of sequence {names[0]}" if names else "of no sequence of the batch"
            raise Failed(
                f"{where} is wrong in {int(wrong.sum())} places of the pages, first at token {offset}"
                f" of page {page}, {whose}"
            )

    def _written(self) -> list[tuple[Tensor, slice]]:
        return [
            (
                self.places(s, np.arange(sequence.prefix, sequence.tokens)),
                slice(int(self.batch.q_indptr[s]), int(self.batch.q_indptr[s + 1])),
            )
            for s, sequence in enumerate(self.sequences)
            if not sequence.padding
        ]

    def _behind(self) -> Tensor:
        """bool: the places behind each sequence's last token, in its last page."""
        found = torch.zeros((self.pool - 1) * self.page_tokens, dtype=torch.bool)
        for s, sequence in enumerate(self.sequences):
            if not sequence.padding:
                end = -(-sequence.tokens // self.page_tokens) * self.page_tokens
                found[self.places(s, np.arange(sequence.tokens, end))] = True
        return found

    def _pages(self, s: int) -> list[int]:
        count = -(-self.sequences[s].tokens // self.page_tokens)
        row: list[int] = self.batch.page_table[self.batch.rows[s], :count].tolist()
        return row


def build_scene(
    rng: np.random.Generator,
    spec: KVSpec,
    sequences: Sequence[Sequence_],
    page_tokens: int,
    *,
    columns: int | None = None,
    tree: bool = False,
    shared: SharedPrefixes | None = None,
) -> Scene:
    """columns: of the page table, at least one more than is needed by default."""
    counts = [0 if s.padding else -(-s.tokens // page_tokens) for s in sequences]
    own = [count - s.shares for count, s in zip(counts, sequences, strict=True)]
    pool = 1 + sum(own) + FOREIGN
    rows = rng.permutation(len(sequences) + SPARE_ROWS)[: len(sequences)]
    width = columns or max(counts) + 1
    table = rng.integers(1, pool, (len(sequences) + SPARE_ROWS, width)).astype(np.int32)
    free = 1 + rng.permutation(pool - 1)
    for s, (row, count, sequence) in enumerate(zip(rows, counts, sequences, strict=True)):
        if sequence.padding:
            table[row] = NULL_PAGE
            continue
        if sequence.shares:
            table[row, : sequence.shares] = table[rows[s - 1], : sequence.shares]
        table[row, sequence.shares : count], free = free[: own[s]], free[own[s] :]
    queries = [len(s.parents) for s in sequences]
    batch = AttentionBatch(
        q_indptr=np.cumsum([0, *queries]).astype(np.int32),
        kv_lens=np.array([s.tokens for s in sequences], np.int32),
        rows=rows.astype(np.int32),
        page_table=table,
        tree_parent=np.concatenate([s.parents for s in sequences]).astype(np.int32)
        if tree
        else None,
        shared=shared,
    )
    scene = Scene(tuple(sequences), batch, page_tokens, pool, [])
    return dataclasses.replace(scene, content=_content(rng, spec, scene))


def _content(rng: np.random.Generator, spec: KVSpec, scene: Scene) -> CanonicalPages:
    """NaN but for the prefixes."""
    tokens = (scene.pool - 1) * scene.page_tokens
    prefixes = [
        scene.places(s, np.arange(sequence.prefix))
        for s, sequence in enumerate(scene.sequences)
        if sequence.prefix
    ]
    written = torch.unique(torch.cat(prefixes)) if prefixes else torch.zeros(0, dtype=torch.int64)
    layers = []
    for heads in spec.layers:
        parts = []
        for dim in (heads.key_dim, heads.value_dim):
            part = torch.full((tokens, heads.kv_heads, dim), torch.nan)
            part[written] = normal(rng, (len(written), heads.kv_heads, dim), torch.float32)
            parts.append(part.to(spec.dtype))
        layers.append((parts[0], parts[1]))
    return layers
