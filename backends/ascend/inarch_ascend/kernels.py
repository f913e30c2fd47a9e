"""The kernel table of an Ascend NPU: operators of CANN, and torch's own where torch-npu has them.

What an operator takes is what its documentation in torch-npu's wheel says.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from inarch.hal.op import Facts, Kernel
from inarch.hal.ops import OPS
from inarch.hal.reference.linear import ReferenceLinear
from inarch.hal.support import Support, no, yes
from inarch_ascend.kv import BLOCK, HEAD_SIZES, stored_sizes

DTYPES = (torch.bfloat16, torch.float16, torch.float32)
ATTENTION_DTYPES = (torch.bfloat16,)
MOST_SHARED = 64  # query heads of one KV head
SINK_VALUE_DIM = 128
MOST_ROTARY_HEADS, MOST_ROTARY = 999, 894
TORCH = (  # made of a few operations of torch's, which torch-npu has
    *("greedy", "sample", "penalize", "count_tokens", "add_bias", "apply_token_mask", "logprobs"),
    "route",
)
CANN = "cann"  # the name of what one operator does


def kernels() -> Sequence[Kernel]:
    return [
        Kernel(
            "attention", CANN, "inarch_ascend.attention:FusedInferAttention", supports_attention
        ),
        Kernel("rms_norm", CANN, "inarch_ascend.ops:rms_norm", supports_norm),
        Kernel("add_rms_norm", CANN, "inarch_ascend.ops:add_rms_norm", supports_norm),
        Kernel("rope", CANN, "inarch_ascend.ops:rope", supports_rope),
        Kernel("silu_mul", CANN, "inarch_ascend.ops:silu_mul", supports_dtype),
        Kernel("linear", CANN, ReferenceLinear, supports_dtype),
        Kernel(
            "grouped_linear", CANN, "inarch_ascend.grouped_linear:GroupedMatmul", supports_dtype
        ),
        *(Kernel(name, "torch", OPS[name].reference) for name in TORCH),
    ]


def supports_dtype(facts: Facts) -> Support:
    if facts["dtype"] not in DTYPES:
        return no(f"{facts['dtype']} is none of {', '.join(map(str, DTYPES))}")
    return yes()


def supports_norm(facts: Facts) -> Support:
    weight = facts.get("weight_dtype", facts["dtype"])
    if weight != facts["dtype"]:
        return no(f"the weight must be {facts['dtype']} as what it scales is, not {weight}")
    return supports_dtype(facts)


def supports_rope(facts: Facts) -> Support:
    heads, size = max(facts["q_heads"], facts["kv_heads"]), facts["rotary_dim"]
    if heads > MOST_ROTARY_HEADS or size > MOST_ROTARY:
        return no(
            f"{heads} heads of {size} rotated features: the operator takes up to "
            f"{MOST_ROTARY_HEADS} of {MOST_ROTARY}"
        )
    return supports_dtype(facts)


def supports_attention(facts: Facts) -> Support:
    """The conditions of the layout TND with a block table."""
    reasons = list(_refusals(facts))
    if reasons:
        return no(*reasons)
    own = facts["key_dim"], facts["value_dim"]
    stored = stored_sizes(*own)
    padded = () if stored == own else (f"heads of {own} are padded to {stored} in the KV cache",)
    return yes("trees of drafted tokens go to the reference", *padded)


def _refusals(facts: Facts) -> Sequence[str]:
    found = []
    if facts["dtype"] not in ATTENTION_DTYPES:
        found.append(f"computes in bfloat16 alone, not in {facts['dtype']}")
    elif facts["kv_dtype"] != facts["dtype"]:
        found.append(f"pages must be {facts['dtype']} as the queries are, not {facts['kv_dtype']}")
    if not str(facts["layout"]).startswith("ascend/") or facts["page_tokens"] != BLOCK:
        found.append(f"takes blocks of {BLOCK} tokens as the backend's own KV store has them")
    if stored_sizes(facts["key_dim"], facts["value_dim"]) is None:
        found.append(f"heads of {facts['key_dim']} features: takes up to {HEAD_SIZES[-1]}")
    if facts["q_heads"] > MOST_SHARED * facts["kv_heads"]:
        found.append(f"more than {MOST_SHARED} query heads share a KV head")
    if facts["softcap"] is not None:
        found.append("no soft-cap")
    if facts["chunk"] is not None:
        found.append("no chunks, only windows")
    if facts["sinks"] and facts["value_dim"] > SINK_VALUE_DIM:
        found.append(f"sinks with heads of up to {SINK_VALUE_DIM} features only")
    if not facts["causal"] and facts["window"] is not None:
        found.append("no window of attention to both sides")
    return found
