"""Attention by definition, in float64, one query at a time; and the batches that tests make."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from inarch.hal.attention import AttentionBatch, AttentionSpec, SharedPrefixes


@dataclass
class Case:
    """A batch whose every sequence has the K and V [kv_len, G, D] that `keys`, `values` list."""

    spec: AttentionSpec
    q_lens: list[int]
    kv_lens: list[int]
    page_tokens: int
    parents: list[list[int]] | None = None
    shared: tuple[list[int], int] | None = None  # sequences, tokens in the same pages
    seed: int = 0
    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        spec, make = self.spec, torch.Generator().manual_seed(self.seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=make)

        for length in self.kv_lens:
            self.keys.append(normal(length, spec.kv_heads, spec.key_dim).to(spec.dtype))
            self.values.append(normal(length, spec.kv_heads, spec.value_dim).to(spec.dtype))
        if self.shared is not None:
            (first, *others), tokens = self.shared
            for other in others:
                self.keys[other][:tokens] = self.keys[first][:tokens]
                self.values[other][:tokens] = self.values[first][:tokens]
        self.q = normal(sum(self.q_lens), spec.q_heads, spec.key_dim).to(spec.dtype)
        self.sinks = normal(spec.q_heads) if spec.sinks else None
        self._page(np.random.default_rng(self.seed))

    def _page(self, random: np.random.Generator) -> None:
        """Pages in no order; page 0, and every third page, belong to nobody."""
        needed = [-(-length // self.page_tokens) for length in self.kv_lens]
        ids = random.permutation(np.arange(1, 3 * sum(needed) // 2 + 3))
        self.pages = len(ids) + 1
        self.table = np.zeros((len(needed) + 2, max(needed) + 1), np.int32)
        self.rows = random.permutation(len(needed) + 2)[: len(needed)].astype(np.int32)
        at = 0
        for row, count in zip(self.rows, needed, strict=True):
            self.table[row, :count] = ids[at : at + count]
            at += count
        if self.shared is not None:
            (first, *others), tokens = self.shared
            for other in others:
                count = tokens // self.page_tokens
                self.table[self.rows[other], :count] = self.table[self.rows[first], :count]

    @property
    def batch(self) -> AttentionBatch:
        shared = None
        if self.shared is not None:
            members, tokens = self.shared
            shared = SharedPrefixes(_int(members), _int([0, len(members)]), _int([tokens]))
        parents = None
        if self.parents is not None:
            parents = _int([each for own in self.parents for each in own])
        return AttentionBatch(
            q_indptr=_int(np.cumsum([0, *self.q_lens])),
            kv_lens=_int(self.kv_lens),
            rows=self.rows,
            page_table=self.table,
            tree_parent=parents,
            shared=shared,
        )

    def slots(self, sequence: int, places: np.ndarray) -> Tensor:
        pages = self.table[self.rows[sequence], places // self.page_tokens].astype(np.int64)
        return torch.from_numpy(pages * self.page_tokens + places % self.page_tokens)

    def new(self, parts: list[Tensor]) -> Tensor:
        """K or V of the query tokens."""
        cut = zip(parts, self.q_lens, strict=True)
        return torch.cat([part[len(part) - count :] for part, count in cut])

    def expected(self, kept: torch.dtype | None = None) -> tuple[Tensor, Tensor]:
        """out [T, H, value_dim] and lse [T, H] in float64."""
        outs, sums, at = [], [], 0
        for s, count in enumerate(self.q_lens):
            keys, values = (_kept(x[s], kept).double() for x in (self.keys, self.values))
            for n in range(count):
                visible = self._visible(s, n)
                out, total = self._attend(self.q[at].double(), keys, values, visible)
                outs.append(out)
                sums.append(total)
                at += 1
        return torch.stack(outs), torch.stack(sums)

    def _visible(self, s: int, n: int) -> Tensor:
        spec, length = self.spec, self.kv_lens[s]
        prefix = length - self.q_lens[s]
        parents = None if self.parents is None else self.parents[s]
        depth = list(range(self.q_lens[s]))
        seen = set(range(n + 1))
        if parents is not None:
            depth = [len(_up(parents, i)) - 1 for i in range(len(parents))]
            seen = set(_up(parents, n))
        own = prefix + depth[n]
        visible = torch.zeros(length, dtype=torch.bool)
        for key in range(length):
            drafted = key - prefix
            place = key if drafted < 0 else prefix + depth[drafted]
            if spec.causal:
                sees = drafted < 0 or drafted in seen
                sees &= spec.window is None or own - place < spec.window
                sees &= spec.chunk is None or own // spec.chunk == place // spec.chunk
            else:
                sees = spec.window is None or abs(own - key) < spec.window
            visible[key] = sees
        return visible

    def _attend(
        self, q: Tensor, keys: Tensor, values: Tensor, visible: Tensor
    ) -> tuple[Tensor, Tensor]:
        spec, group = self.spec, self.spec.q_heads // self.spec.kv_heads
        keys, values = (x.repeat_interleave(group, 1) for x in (keys, values))
        scores = torch.einsum("hd,lhd->hl", q, keys) * spec.scale
        if spec.softcap is not None:
            scores = torch.tanh(scores / spec.softcap) * spec.softcap
        scores = scores.masked_fill(~visible, -torch.inf)
        if self.sinks is not None:
            scores = torch.cat((scores, self.sinks.double()[:, None]), 1)
        total = scores.logsumexp(1)
        weights = torch.exp(scores - total[:, None])[:, : len(visible)]
        return torch.einsum("hl,lhd->hd", weights, values), total


def _up(parents: list[int], n: int) -> list[int]:
    found = []
    while n >= 0:
        found.append(n)
        n = parents[n]
    return found


def _kept(x: Tensor, dtype: torch.dtype | None) -> Tensor:
    return x if dtype is None else x.to(dtype).to(x.dtype)


def _int(values: object) -> np.ndarray:
    return np.array(values, dtype=np.int32)
