"""Attention in which a query sees later tokens too, against a matrix of every query and key."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inarch.hal.attention import AttentionSpec, attention_facts
from inarch.hal.reference import attention, grouping
from inarch.hal.reference.kv import ReferenceKVStore

from .test_attention import Case, Sequence, build, chain, specs


def whole(lengths: list[int]) -> list[Sequence]:
    return [Sequence(0, chain(length)) for length in lengths]


def oracle(case: Case, lengths: list[int]) -> np.ndarray:
    """[T, H, value_dim] in float64."""
    spec, outs, start = case.spec, [], 0
    for length in lengths:
        here = slice(start, start + length)
        q, k, v = (x[here].double().numpy() for x in (case.q, case.k, case.v))
        k, v = (np.repeat(x, spec.q_heads // spec.kv_heads, axis=1) for x in (k, v))
        scores = np.einsum("qhd,khd->hqk", q, k) * spec.scale
        if spec.softcap is not None:
            scores = spec.softcap * np.tanh(scores / spec.softcap)
        place = np.arange(length)
        if spec.window is not None:
            far = abs(place[:, None] - place) >= spec.window
            scores = np.where(far, -np.inf, scores)
        terms = np.exp(scores)
        total = terms.sum(-1)
        if case.sinks is not None:
            total += np.exp(case.sinks.double().numpy())[:, None]
        outs.append(np.einsum("hqk,khd->qhd", terms / total[..., None], v))
        start += length
    return np.concatenate(outs)


@settings(max_examples=100, deadline=None)
@given(
    spec=specs(),
    lengths=st.lists(st.integers(1, 70), min_size=1, max_size=6),
    page_tokens=st.sampled_from([1, 16]),
    small_blocks=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_batch_of_whole_prompts_equals_the_definition(
    spec: AttentionSpec, lengths: list[int], page_tokens: int, small_blocks: bool, seed: int
) -> None:
    spec = dataclasses.replace(spec, causal=False, chunk=None)
    case = build(spec, whole(lengths), page_tokens, seed)
    tolerance = {torch.float32: 2e-5, torch.bfloat16: 3e-2, torch.float16: 4e-3}[spec.dtype]
    with pytest.MonkeyPatch.context() as patch:
        if small_blocks:
            patch.setattr(attention, "BLOCK", 200)
            patch.setattr(grouping, "GATHER_BYTES", 4096)
        found = case.run().out.double().numpy()
    np.testing.assert_allclose(found, oracle(case, lengths), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("window", [None, 5])
def test_pages_of_another_dtype_are_read_back_to_both_sides(window: int | None) -> None:
    """Where K and V are stored in fewer bits, prompts are attended as others would find them."""
    spec = AttentionSpec(4, 2, 16, 16, 0.25, torch.float32, window=window, causal=False)
    lengths = [33, 5, 33, 64]
    case = build(spec, whole(lengths), 16)
    narrow = dataclasses.replace(case.store.spec, dtype=torch.bfloat16)
    case.store = ReferenceKVStore(narrow, 16, torch.device("cpu"))
    case.kv = case.store.allocate(64)
    found = case.run().out.numpy()
    for name in ("k", "v"):
        setattr(case, name, getattr(case, name).bfloat16().float())
    np.testing.assert_allclose(found, oracle(case, lengths), rtol=1e-4, atol=1e-4)


def test_the_fact_is_one_that_kernels_are_chosen_by() -> None:
    spec = AttentionSpec(4, 2, 16, 16, 0.25, torch.float32, causal=False)
    store = build(spec, whole([3]), 16).store
    assert attention_facts(spec, store)["causal"] is False
