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
MOST_EXPERTS = 1024
ACTIVATIONS = (
    *("silu_mul", "gelu_mul", "gelu_exact_mul"),
    *("silu", "gelu", "gelu_tanh", "relu", "relu_squared"),
)
SAMPLING = {  # op -> its place in this package
    "greedy": "sampling:greedy",
    "sample": "sampling:sample",
    "logprobs": "logprobs:logprobs",
    "penalize": "penalties:penalize",
    "count_tokens": "penalties:count_tokens",
    "add_bias": "penalties:add_bias",
    "apply_token_mask": "token_mask:apply_token_mask",
}
COST = 0.5  # better than anything that does not say otherwise
NARROW = torch.float8_e4m3fn  # of pages, besides the dtype computed in
CARRIED = ("gfx942",)  # where the device converts float8_e4m3fnuz instead: see fnuz.py
FP8_HEAD_MULTIPLE = 16


def kernels(arch: str) -> list[Kernel]:
    """The kernels for a device of `arch` ("sm_90a", "gfx942", as in DeviceInfo)."""
    elementwise = functools.partial(_on, arch, _dtype)
    norm = functools.partial(_on, arch, _norm)
    wide_norm = functools.partial(_on, arch, _wide_norm)
    rope = functools.partial(_on, arch, _rope)
    norm_rope = functools.partial(_on, arch, _norm_rope)
    return [
        Kernel("rms_norm", "triton", "inarch_triton.norm:rms_norm", norm),
        Kernel("add_rms_norm", "triton", "inarch_triton.norm:add_rms_norm", norm),
        Kernel("rope", "triton", "inarch_triton.rotary:rope", rope),
        Kernel("qk_norm_rope", "triton", "inarch_triton.rotary:qk_norm_rope", norm_rope),
        Kernel("layer_norm", "triton", "inarch_triton.layer_norm:layer_norm", wide_norm),
        Kernel("add_layer_norm", "triton", "inarch_triton.layer_norm:add_layer_norm", wide_norm),
        *(
            Kernel(name, "triton", f"inarch_triton.activation:{name}", elementwise)
            for name in ACTIVATIONS
        ),
        Kernel(
            "attention",
            "triton",
            "inarch_triton.attention:TritonAttention",
            functools.partial(_on, arch, functools.partial(supports_attention, arch)),
        ),
        *(
            Kernel(name, "triton", f"inarch_triton.{where}", functools.partial(_on, arch, _float32))
            for name, where in SAMPLING.items()
        ),
        Kernel(
            "linear",
            "triton",
            functools.partial(_linear, arch),
            functools.partial(_on, arch, supports_linear),
        ),
        Kernel(
            "grouped_linear",
            "triton",
            functools.partial(_grouped_linear, arch),
            functools.partial(_on, arch, supports_grouped_linear),
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


def _grouped_linear(arch: str) -> Any:
    from inarch_triton.grouped_linear import TritonGroupedLinear  # imports triton

    return TritonGroupedLinear(arch)


def _dtype(facts: Facts) -> Support:
    if facts["dtype"] not in DTYPES:
        return no(f"{facts['dtype']} is none of {', '.join(map(str, DTYPES))}")
    return yes(cost=COST)


def _float32(facts: Facts) -> Support:
    return yes(cost=COST)  # logits are always float32


def _norm(facts: Facts) -> Support:
    if facts["hidden"] > MOST_FEATURES:
        return no(f"rows of {facts['hidden']} exceed the {MOST_FEATURES} that registers hold")
    return _norm_weight(facts)


def _wide_norm(facts: Facts) -> Support:
    """Of a norm that computes in float32 throughout, whatever its weight is of."""
    return _norm({**facts, "weight_dtype": torch.float32})


def _norm_weight(facts: Facts) -> Support:
    dtype, weight = facts["dtype"], facts["weight_dtype"]
    if weight not in (dtype, torch.float32):
        return no(f"a weight of {weight}: it may be {dtype}, as the rows are, or torch.float32")
    return _dtype(facts)


def _norm_rope(facts: Facts) -> Support:
    rope = _rope(facts)
    return rope and _norm_weight(facts)


def _rope(facts: Facts) -> Support:
    dim, rotary = facts["head_dim"], facts["rotary_dim"]
    if dim > MOST_HEAD_DIM:
        return no(f"head size {dim} exceeds {MOST_HEAD_DIM}")
    if rotary % 2 or rotary > dim:
        return no(f"{rotary} rotated features are odd or more than the head size {dim}")
    return _dtype(facts)


def keeps_fp8(arch: str) -> Support:
    """Whether devices of `arch` convert 8-bit floats, so that pages may hold float8_e4m3fn."""
    known = architecture(arch)
    if known.startswith("sm_") and int(known[3:]) < 89:
        return no(f"{known} does not convert 8-bit floats: sm_89 (Ada, Hopper and newer) does")
    if known not in SHARED_MEMORY or known in ("gfx90a", "gfx1100"):
        return no(f"{known} does not convert 8-bit floats")
    return yes("half the memory of 16-bit pages; no scales, so that values beyond 448 become 448")


def carries_fnuz(arch: str) -> bool:
    """Whether pages of float8_e4m3fn are kept as float8_e4m3fnuz on devices of `arch`."""
    return architecture(arch) in CARRIED


def supports_attention(arch: str, facts: Facts) -> Support:
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
    if unmasked := _unmasked(facts):
        return no(unmasked)
    kept = facts["kv_dtype"]
    fnuz = carries_fnuz(arch) and kept == NARROW
    if not facts["layout"].startswith("fnuz/" if fnuz else "reference/"):
        needed = "FnuzKVStore" if fnuz else "PagedKVStore"
        return no(f"KV layout {facts['layout']}: plain pages are needed ({needed})")
    if kept == dtype:
        return yes(cost=COST)
    if kept != NARROW:
        return no(f"pages of {kept}: they may hold {dtype}, which is computed in, or {NARROW}")
    return _narrow_pages(arch, (facts["key_dim"], facts["value_dim"]))


def _unmasked(facts: Facts) -> str:
    """What is asked of the mask that the kernel does not do; empty: nothing."""
    if not facts["causal"]:
        return "attention to both sides: queries see no later keys here"
    if facts["chunk"] is not None:
        return "a query sees only its own chunk of tokens, which the kernel does not mask"
    return ""


def _narrow_pages(arch: str, sizes: tuple[int, int]) -> Support:
    support = keeps_fp8(arch)
    if not support:
        return support
    # Measured on an H200 (2026-11-22): wrong sums with 24 and 12 in 16 bits; 64 to 256 are right.
    if any(size % FP8_HEAD_MULTIPLE for size in sizes):
        return no(
            f"head sizes {sizes[0]} of K and {sizes[1]} of V over {NARROW}: multiples of "
            f"{FP8_HEAD_MULTIPLE} are needed"
        )
    return yes(cost=COST)


def supports_grouped_linear(facts: Facts) -> Support:
    """Facts are the fields of GroupedLinearSpec."""
    if facts["dtype"] not in (torch.float16, torch.bfloat16):
        return no(f"products of {facts['dtype']} are left to torch")
    if facts["experts"] > MOST_EXPERTS:
        return no(
            f"{facts['experts']} experts exceed the {MOST_EXPERTS} that a program looks through"
        )
    return yes(cost=COST)


def supports_linear(facts: Facts) -> Support:
    """Facts are the fields of LinearSpec."""
    if facts["dtype"] not in (torch.float16, torch.bfloat16):
        return no(f"{facts['dtype']} products are left to torch")
    return yes(cost=COST)
