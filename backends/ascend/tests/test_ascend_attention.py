"""Fused attention on the simulated NPU against the reference: mixed batches, windows, sinks, heads."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest
import torch
from torch import Tensor

from inarch.hal.attention import AttentionBatch, AttentionResult, AttentionSpec, attention_facts
from inarch.hal.device import Device
from inarch_ascend.kernels import supports_attention

from .batches import BLOCK, batch, filled, inputs, kv_spec, reference

SPEC = AttentionSpec(4, 2, 128, 128, scale=0.09, dtype=torch.bfloat16)
SPECS = {
    "heads of 128": SPEC,
    "padded heads": dataclasses.replace(SPEC, key_dim=64, value_dim=48),
    "wide keys": dataclasses.replace(SPEC, key_dim=160, value_dim=128),
    "window": dataclasses.replace(SPEC, window=50),
    "window of one page": dataclasses.replace(SPEC, window=128),
    "sinks": dataclasses.replace(SPEC, sinks=True),
    "both sides": dataclasses.replace(SPEC, causal=False),
}


def attend(
    spec: AttentionSpec,
    given: AttentionBatch,
    tensors: tuple[Tensor, Tensor, Tensor],
    device: Device,
    sinks: Tensor | None = None,
    *,
    lse: bool = True,
) -> AttentionResult:
    from inarch_ascend.attention import FusedInferAttention

    store = device.kv_store(kv_spec(spec), BLOCK)
    assert store is not None
    assert supports_attention(attention_facts(spec, store))
    attention = FusedInferAttention(spec, store, device)
    kv = filled(store, spec, device)
    plan = attention.plan(given).on(device)
    there = [x.to(device.torch_device) for x in tensors]
    return attention.run(
        0, *there, kv, plan, sinks=None if sinks is None else sinks.to(device.torch_device), lse=lse
    )


@pytest.mark.parametrize("name", SPECS)
def test_any_mix_of_decodes_and_prompts_attends_as_the_reference_does(
    npu: Device, name: str
) -> None:
    spec = SPECS[name]
    if spec.causal:
        given = batch(queries=(1, 37, 1, 200, 1, 5), prefixes=(300, 0, 0, 128, 127, 140))
    else:
        given = batch(queries=(37, 200, 1), prefixes=(0, 0, 0))
    tensors = inputs(spec, int(given.q_indptr[-1]))
    sinks = torch.tensor([0.5, -1.0, 2.0, 0.0]) if spec.sinks else None
    expected = reference(spec, given, tensors, sinks)
    found = attend(spec, given, tensors, npu, sinks)
    torch.testing.assert_close(found.out.cpu(), expected.out, rtol=0.02, atol=0.01)
    assert found.lse is not None
    torch.testing.assert_close(found.lse.cpu(), expected.lse, rtol=0.01, atol=0.01)


def test_queries_and_values_may_be_views_of_a_projection(npu: Device) -> None:
    given = batch(queries=(1, 3), prefixes=(10, 0))
    heads = SPEC.q_heads + 2 * SPEC.kv_heads
    joint = inputs(dataclasses.replace(SPEC, q_heads=heads), 4)[0]
    q, k, v = joint.split((SPEC.q_heads, SPEC.kv_heads, SPEC.kv_heads), dim=1)
    found = attend(SPEC, given, (q, k, v), npu)
    expected = reference(SPEC, given, (q, k, v))
    torch.testing.assert_close(found.out.cpu(), expected.out, rtol=0.02, atol=0.01)


@pytest.mark.parametrize("tree", [[-1, 0, 1, -1], [-1, 0, 0, -1]], ids=["chain", "tree"])
def test_drafted_tokens_are_verified(npu: Device, tree: list[int]) -> None:
    """A chain is an extend; a tree goes to the reference, on the NPU."""
    given = batch(queries=(3, 1), prefixes=(10, 0))
    drafted = dataclasses.replace(given, tree_parent=np.array(tree, np.int32))
    tensors = inputs(SPEC, 4)
    expected = reference(SPEC, drafted, tensors)
    found = attend(SPEC, drafted, tensors, npu)
    torch.testing.assert_close(found.out.cpu(), expected.out, rtol=0.02, atol=0.01)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"dtype": torch.float16}, "bfloat16 alone"),
        ({"kv_dtype": torch.float8_e4m3fn}, "pages must be"),
        ({"page_tokens": 64}, "blocks of 128"),
        ({"layout": "reference/bfloat16/abc"}, "own KV store"),
        ({"key_dim": 256}, "heads of 256"),
        ({"q_heads": 130}, "share a KV head"),
        ({"softcap": 30.0}, "no soft-cap"),
        ({"chunk": 64}, "no chunks"),
        ({"sinks": True, "key_dim": 192, "value_dim": 192}, "sinks with heads of up to 128"),
        ({"causal": False, "window": 5}, "window of attention to both sides"),
    ],
)
def test_what_the_operator_does_not_take_is_refused_with_the_reason(
    change: dict[str, object], reason: str
) -> None:
    facts = {f.name: getattr(SPEC, f.name) for f in dataclasses.fields(SPEC)}
    facts |= {"page_tokens": BLOCK, "layout": "ascend/bfloat16/x", "kv_dtype": torch.bfloat16}
    assert supports_attention(facts)
    answer = supports_attention(facts | change)
    assert not answer
    assert reason in answer.why


def test_pages_travel_between_the_npu_and_the_reference(npu: Device) -> None:
    from inarch.hal.reference.kv import ReferenceKVStore

    spec = SPECS["padded heads"]
    ours = npu.kv_store(kv_spec(spec), BLOCK)
    assert ours is not None
    theirs = ReferenceKVStore(kv_spec(spec), 16, torch.device("cpu"))
    there = filled(ours, spec, npu)
    data = ours.export_pages(there, np.array([3, 5]))
    imported = theirs.import_pages(theirs.allocate(20), np.arange(1, 17), data)
    back = ours.import_pages(
        ours.allocate(9), np.array([7, 2]), theirs.export_pages(imported, np.arange(1, 17))
    )
    again = ours.export_pages(back, np.array([7, 2]))
    for (k, v), (k_again, v_again) in zip(data, again, strict=True):
        assert k.shape == (256, 2, 64)
        assert v.shape == (256, 2, 48)
        assert torch.equal(k, k_again)
        assert torch.equal(v, v_again)
    copied = ours.copy_pages(back, np.array([7]), np.array([4]))
    first = functools.partial(ours.export_pages, copied)
    assert torch.equal(first(np.array([4]))[0][0], first(np.array([7]))[0][0])


def test_pages_have_the_size_of_the_operator_s_blocks(npu: Device) -> None:
    assert [tokens for tokens, _ in npu.page_tokens()] == [BLOCK]
    with pytest.raises(ValueError, match="128 tokens here, not 64"):
        npu.kv_store(kv_spec(SPEC), 64)
