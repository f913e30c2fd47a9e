"""The kernels of attention, norms, activations and sampling, with the conditions each needs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from inarch.hal.op import Facts, Kernel
from inarch.hal.support import Support, no, yes
from inarch_intel_cpu.attention import CpuAttention
from inarch_intel_cpu.dtypes import TYPES
from inarch_intel_cpu.kv import KEPT, LAYOUT, STEP
from inarch_intel_cpu.latent import CpuLatentAttention
from inarch_intel_cpu.native import Native
from inarch_intel_cpu.ops import GATED, KINDS, Ops
from inarch_intel_cpu.sampling import Sampling

MOST_HEAD_DIM = 1024  # csrc/heads.h
NORMS = ("rms_norm", "add_rms_norm", "layer_norm", "add_layer_norm")
SAMPLING = (
    *("greedy", "sample", "logprobs", "penalize", "count_tokens", "add_bias", "apply_token_mask"),
)


def attending_kernels(native: Native) -> list[Kernel]:
    """Named by the instructions that they are compiled for."""
    name, ops, sampling = native.variant, Ops(native), Sampling(native)
    attention = functools.partial(CpuAttention, native=native, turns=(ops.rope, ops.qk_norm_rope))
    latent = functools.partial(CpuLatentAttention, native=native)
    return [
        Kernel("attention", name, attention, supports_attention),
        Kernel("latent_attention", name, latent, supports_pages),
        Kernel("rope", name, ops.rope, _rope),
        Kernel("qk_norm_rope", name, ops.qk_norm_rope, _norm_rope),
        *(Kernel(op, name, getattr(ops, op), _norm) for op in NORMS),
        *(Kernel(op, name, ops.activation(op), _computed) for op in (*KINDS, *GATED)),
        Kernel("clamped_swiglu", name, ops.clamped_swiglu, _computed),
        Kernel("xielu", name, ops.xielu, _computed),
        *(Kernel(op, name, _method(sampling, op)) for op in SAMPLING),
    ]


def _method(of: object, name: str) -> Callable[..., Any]:
    found: Callable[..., Any] = getattr(of, name)
    return found


def _computed(facts: Facts) -> Support:
    if facts["dtype"] not in TYPES:
        return no(f"computes in {', '.join(map(str, TYPES))}, not in {facts['dtype']}")
    return yes()


def _norm(facts: Facts) -> Support:
    dtype, weight = facts["dtype"], facts["weight_dtype"]
    if weight not in (dtype, *list(TYPES)[:1]):
        return no(f"a weight of {weight}: it may be {dtype}, as the rows are, or torch.float32")
    return _computed(facts)


def _rope(facts: Facts) -> Support:
    dim, rotary = facts["head_dim"], facts["rotary_dim"]
    if dim > MOST_HEAD_DIM:
        return no(f"head size {dim} exceeds {MOST_HEAD_DIM}")
    if rotary % 2 or rotary > dim:
        return no(f"{rotary} rotated features are odd or more than the head size {dim}")
    return _computed(facts)


def _norm_rope(facts: Facts) -> Support:
    return _rope(facts) and _norm(facts)


def supports_pages(facts: Facts) -> Support:
    """Facts are those of `page_facts`."""
    if not facts["layout"].startswith(LAYOUT):
        return no(f"KV layout {facts['layout']}: our own is needed (CpuKVStore)")
    if facts["page_tokens"] % STEP:
        return no(f"pages of {facts['page_tokens']} tokens: a multiple of {STEP} is needed")
    if facts["kv_dtype"] not in KEPT:
        return no(f"pages of {facts['kv_dtype']}: they may hold {', '.join(map(str, KEPT))}")
    return _computed(facts)


def supports_attention(facts: Facts) -> Support:
    """Facts are those of `attention_facts`."""
    widest = max(facts["key_dim"], facts["value_dim"])
    if widest > MOST_HEAD_DIM:
        return no(f"head size {widest} exceeds {MOST_HEAD_DIM}")
    if not facts["causal"] and facts["chunk"] is not None:
        return no("attention to both sides within chunks of tokens is not defined")
    return supports_pages(facts)
