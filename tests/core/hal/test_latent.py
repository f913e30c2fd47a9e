"""Latent attention: absorbed equals expanded, and both equal loops over single numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from inarch.hal.attention import AttentionBatch
from inarch.hal.kv import KVSpec
from inarch.hal.latent import LatentSpec, UpProjection
from inarch.hal.reference import latent
from inarch.hal.reference.device import ReferenceDevice
from inarch.hal.reference.kv import ReferenceKVStore
from inarch.hal.reference.latent import ReferenceLatentAttention

SPEC = LatentSpec(4, 8, 6, 4, 5, 0.4, torch.float64)
DEEPSEEK_V3 = LatentSpec(128, 512, 128, 64, 128, 192**-0.5, torch.bfloat16)


@dataclass
class Case:
    """Sequences of `lengths` (prefix, new tokens); their prefixes were written in an earlier step."""

    spec: LatentSpec
    lengths: list[tuple[int, int]]
    page_tokens: int = 4
    stored: torch.dtype | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        self.generator = torch.Generator().manual_seed(self.seed)
        spec = self.spec
        self.up = UpProjection(
            self.normal(spec.q_heads, spec.nope_dim, spec.kv_rank),
            self.normal(spec.q_heads, spec.value_dim, spec.kv_rank),
        )
        total = [prefix + new for prefix, new in self.lengths]
        self.q_nope = [self.normal(n, spec.q_heads, spec.nope_dim) for n in total]
        self.q_rope = [self.normal(n, spec.q_heads, spec.rope_dim) for n in total]
        self.latent = [self.normal(n, spec.kv_rank) for n in total]
        self.k_rope = [self.normal(n, spec.rope_dim) for n in total]
        pages = [-(-n // self.page_tokens) for n in total]
        self.table = np.zeros((len(total), max(pages)), np.int32)
        free = 1 + np.random.default_rng(self.seed).permutation(sum(pages))
        for row, count in enumerate(pages):
            self.table[row, :count], free = free[:count], free[count:]
        kept = KVSpec((spec.kv_heads,), self.stored or spec.dtype)
        self.store = ReferenceKVStore(kept, self.page_tokens, torch.device("cpu"))
        self.kv = self.store.allocate(1 + sum(pages))
        for part in self.kv[0]:
            part.fill_(torch.nan)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=self.generator).to(
            self.spec.dtype
        )

    def run(self) -> list[Tensor]:
        """out [new tokens, H, V] of each sequence."""
        prefixes = [prefix for prefix, _ in self.lengths]
        cached = [i for i, prefix in enumerate(prefixes) if prefix]
        if cached:
            self.step({i: slice(0, prefixes[i]) for i in cached})
        every = {i: slice(prefix, prefix + new) for i, (prefix, new) in enumerate(self.lengths)}
        return self.step(every)

    def step(self, parts: dict[int, slice]) -> list[Tensor]:
        sizes = [part.stop - part.start for part in parts.values()]
        batch = AttentionBatch(
            q_indptr=np.cumsum([0, *sizes]).astype(np.int32),
            kv_lens=np.array([part.stop for part in parts.values()], np.int32),
            rows=np.array(list(parts), np.int32),
            page_table=self.table,
        )
        attention = ReferenceLatentAttention(self.spec, self.store, ReferenceDevice())
        plan = attention.plan(batch).on(ReferenceDevice())
        inputs = (
            torch.cat([of[i][part] for i, part in parts.items()])
            for of in (self.q_nope, self.q_rope, self.latent, self.k_rope)
        )
        out, self.kv = attention.run(0, *inputs, self.kv, plan, self.up)
        return list(out.split(sizes))

    def oracle(self) -> list[Tensor]:
        """One query, head and key at a time, with the keys and values written out."""
        found = []
        for i, (prefix, new) in enumerate(self.lengths):
            latents, k_rope = self.latent[i].double(), self.k_rope[i].double()
            out = torch.zeros(new, self.spec.q_heads, self.spec.value_dim, dtype=torch.float64)
            for h in range(self.spec.q_heads):
                keys = [
                    torch.cat((self.up.key[h].double() @ c, r))
                    for c, r in zip(latents, k_rope, strict=True)
                ]
                values = torch.stack([self.up.value[h].double() @ c for c in latents])
                for t in range(new):
                    at = prefix + t
                    q = torch.cat((self.q_nope[i][at, h], self.q_rope[i][at, h])).double()
                    scores = torch.stack([q @ k for k in keys[: at + 1]]) * self.spec.scale
                    out[t, h] = scores.softmax(0) @ values[: at + 1]
            found.append(out)
        return found


def forced(monkeypatch: pytest.MonkeyPatch, *, expanded: bool) -> None:
    monkeypatch.setattr(LatentSpec, "better_expanded", lambda *_: expanded)


LENGTHS = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 30)), min_size=1, max_size=6)


@settings(max_examples=40, deadline=None)
@given(
    lengths=LENGTHS,
    page_tokens=st.sampled_from([1, 4, 16]),
    seed=st.integers(0, 100),
    heads=st.sampled_from([1, 3]),
    dims=st.sampled_from([(8, 6, 4, 5), (16, 4, 2, 4), (4, 3, 6, 12)]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_absorbed_equals_expanded_and_the_definition(
    lengths: list[tuple[int, int]],
    page_tokens: int,
    seed: int,
    heads: int,
    dims: tuple[int, int, int, int],
    dtype: torch.dtype,
) -> None:
    spec = LatentSpec(heads, *dims, 0.3, dtype)
    tolerance = {"rtol": 0, "atol": 1e-4 if dtype == torch.float32 else 1e-12}
    found = []
    with pytest.MonkeyPatch.context() as patch:
        for expanded in (False, True):
            forced(patch, expanded=expanded)
            case = Case(spec, lengths, page_tokens, seed=seed)
            found.append(case.run())
    torch.testing.assert_close(found[0], found[1], **tolerance)
    expected = [out.to(dtype) for out in case.oracle()]
    torch.testing.assert_close(found[0], expected, **tolerance)


def test_few_heads_are_expanded_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    forced(monkeypatch, expanded=True)
    lengths = [(13, 4), (0, 9), (20, 1)]
    at_once = Case(SPEC, lengths).run()
    largest = 0

    def expand(self: UpProjection, latents: Tensor, heads: slice) -> tuple[Tensor, Tensor]:
        nonlocal largest
        found = original(self, latents, heads)
        largest = max(largest, sum(part.numel() for part in found))
        return found

    original = UpProjection.expand
    monkeypatch.setattr(UpProjection, "expand", expand)
    monkeypatch.setattr(latent, "BLOCK", 2 * 20 * 15)  # two of the four heads of twenty keys
    torch.testing.assert_close(Case(SPEC, lengths).run(), at_once, rtol=0, atol=1e-12)
    assert 0 < largest <= latent.BLOCK


@pytest.mark.parametrize("expanded", [False, True], ids=["absorbed", "expanded"])
@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float8_e4m3fn], ids=str)
def test_over_narrow_pages_even_new_tokens_are_read_rounded(
    monkeypatch: pytest.MonkeyPatch, stored: torch.dtype, expanded: bool
) -> None:
    forced(monkeypatch, expanded=expanded)
    case = Case(SPEC, [(11, 3), (0, 8), (9, 1)], stored=stored)
    found = case.run()
    case.latent = [part.to(stored).double() for part in case.latent]
    case.k_rope = [part.to(stored).double() for part in case.k_rope]
    torch.testing.assert_close(found, case.oracle(), rtol=0, atol=1e-12)


def counted(spec: LatentSpec, queries: int, keys: int) -> tuple[int, int]:
    """Multiplications of one head, absorbed and expanded: products of matrices, written out."""
    up = spec.nope_dim + spec.value_dim
    absorbed = queries * spec.nope_dim * spec.kv_rank  # W_uk^T q
    absorbed += queries * keys * (spec.kv_rank + spec.rope_dim)  # scores
    absorbed += queries * keys * spec.kv_rank  # sums of latents
    absorbed += queries * spec.kv_rank * spec.value_dim  # W_uv
    expanded = keys * spec.kv_rank * up  # keys and values
    expanded += queries * keys * (spec.nope_dim + spec.rope_dim)
    expanded += queries * keys * spec.value_dim
    return absorbed, expanded


@settings(max_examples=200, deadline=None)
@given(
    queries=st.integers(1, 5000),
    prefix=st.integers(0, 200_000),
    dims=st.tuples(*[st.integers(1, 600)] * 4),
)
def test_it_is_expanded_where_that_takes_fewer_multiplications(
    queries: int, prefix: int, dims: tuple[int, int, int, int]
) -> None:
    spec = LatentSpec(16, *dims, 0.1, torch.bfloat16)
    absorbed, expanded = counted(spec, queries, queries + prefix)
    assert spec.better_expanded(queries, queries + prefix) == (expanded < absorbed)


@pytest.mark.parametrize(
    ("queries", "keys", "expanded"),
    [(1, 1000, False), (16, 100_000, False), (170, 170 + 10**6, False), (256, 50_000, True)],
)
def test_deepseek_is_expanded_from_about_170_new_tokens_on(
    queries: int, keys: int, expanded: bool
) -> None:
    assert DEEPSEEK_V3.better_expanded(queries, keys) is expanded
    assert DEEPSEEK_V3.better_expanded(keys, keys)
