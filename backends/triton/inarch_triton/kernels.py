"""What the backends register: every kernel of this package, with the conditions it needs."""

from __future__ import annotations

import functools
from typing import Any

import torch

from inarch.hal.op import Facts, Kernel
from inarch.hal.support import Support, no, yes
from inarch_triton.tiles import SHARED_MEMORY, architecture

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
MOST_FEATURES = 16384  # of a normalised row: it stays in registers
MOST_HEAD_DIM = 256
MOST_GROUP = 64  # query heads that share a KV head: they fill a tile together
COST = 0.5  # better than anything that does not say otherwise


def kernels(arch: str) -> list[Kernel]:
    """The kernels for a device of `arch` ("sm_90a", "gfx942", as in DeviceInfo)."""
    elementwise = functools.partial(_on, arch, _dtype)
    norm = functools.partial(_on, arch, _norm)
    rope = functools.partial(_on, arch, _rope)
    return [
        Kernel("rms_norm", "triton", "inarch_triton.norm:rms_norm", norm),
        Kernel("add_rms_norm", "triton", "inarch_triton.norm:add_rms_norm", norm),
        Kernel("rope", "triton", "inarch_triton.rotary:rope", rope),
        Kernel("qk_norm_rope", "triton", "inarch_triton.rotary:qk_norm_rope", rope),
        Kernel("silu_mul", "triton", "inarch_triton.activation:silu_mul", elementwise),
        Kernel("gelu_mul", "triton", "inarch_triton.activation:gelu_mul", elementwise),
        Kernel(
            "attention",
            "triton",
            "inarch_triton.attention:TritonAttention",
            functools.partial(_on, arch, supports_attention),
        ),
        Kernel(
            "linear",
            "triton",
            functools.partial(_linear, arch),
            functools.partial(_on, arch, supports_linear),
        ),
    ]


def _on(arch: str, supports: Any, facts: Facts) -> Support:
    known = architecture(arch)
    if known not in SHARED_MEMORY:
        return no(
            f"{arch} is none of {', '.join(SHARED_MEMORY)}, for which the kernels are compiled"
        )
    answer: Support = supports(facts)
    return answer


def _linear(arch: str) -> Any:
    from inarch_triton.linear import TritonLinear  # imports triton

    return TritonLinear(arch)


def _dtype(facts: Facts) -> Support:
    if facts["dtype"] not in DTYPES:
        return no(f"{facts['dtype']} is none of {', '.join(map(str, DTYPES))}")
    return yes(cost=COST)


def _norm(facts: Facts) -> Support:
    if facts["hidden"] > MOST_FEATURES:
        return no(f"rows of {facts['hidden']} exceed the {MOST_FEATURES} that registers hold")
    return _dtype(facts)


def _rope(facts: Facts) -> Support:
    dim, rotary = facts["head_dim"], facts["rotary_dim"]
    if dim > MOST_HEAD_DIM:
        return no(f"head size {dim} exceeds {MOST_HEAD_DIM}")
    if rotary % 2 or rotary > dim:
        return no(f"{rotary} rotated features are odd or more than the head size {dim}")
    return _dtype(facts)


def supports_attention(facts: Facts) -> Support:
    """Facts are those of `attention_facts`."""
    dtype, page, group = facts["dtype"], facts["page_tokens"], facts["q_heads"] // facts["kv_heads"]
    if dtype not in DTYPES:
        return _dtype(facts)
    widest = max(facts["key_dim"], facts["value_dim"])
    if widest > MOST_HEAD_DIM:
        return no(f"head size {widest} exceeds {MOST_HEAD_DIM}")
    if group > MOST_GROUP:
        return no(f"{group} query heads share a KV head: the most is {MOST_GROUP}")
    if page < 16 or page & (page - 1):
        return no(f"pages of {page} tokens: a power of two from 16 is needed")
    if facts["scale"] <= 0:
        return no(f"scale {facts['scale']} is not positive")
    if not facts["layout"].startswith(f"reference/{str(dtype).removeprefix('torch.')}/"):
        return no(f"KV layout {facts['layout']}: plain pages in {dtype} are needed (PagedKVStore)")
    return yes(cost=COST)


def supports_linear(facts: Facts) -> Support:
    """Facts are the fields of LinearSpec."""
    if facts["dtype"] not in (torch.float16, torch.bfloat16):
        return no(f"{facts['dtype']} products are left to torch")
    return yes(cost=COST)
