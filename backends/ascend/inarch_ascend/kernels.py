"""The kernel table of an Ascend NPU: operators of CANN, and torch's own where torch-npu has them.

What an operator takes is what its documentation in torch-npu's wheel says.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from inarch.hal.op import Facts, Kernel
from inarch.hal.ops import OPS
from inarch.hal.reference.linear import ReferenceLinear
from inarch.hal.support import Support, no, yes
from inarch_ascend.kv import BLOCK, HEAD_SIZES, stored_sizes
from inarch_ascend.quantized_linear import group_size

DTYPES = (torch.bfloat16, torch.float16, torch.float32)
ATTENTION_DTYPES = (torch.bfloat16,)
MOST_SHARED = 64  # query heads of one KV head
SINK_VALUE_DIM = 128
MOST_FEATURES = 65535  # of a quantized weight, on either side
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
        Kernel("experts", CANN, "inarch_ascend.experts:RoutedExperts", supports_experts),
        Kernel(
            "quantized_linear",
            "cann_integers",
            "inarch_ascend.quantized_linear:QuantMatmul",
            supports_integers,
        ),
        Kernel(
            "quantized_linear",
            CANN,
            "inarch_ascend.quantized_linear:WeightQuantMatmul",
            supports_scaled_weight,
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


def supports_experts(facts: Facts) -> Support:
    """What is refused here is made of parts, of which the grouped products are CANN's too."""
    reasons = []
    if facts["dtype"] != torch.bfloat16:
        reasons.append(f"adds up in bfloat16 alone, not in {facts['dtype']}")
    if facts["activation"] != "silu":
        reasons.append(f"no activation {facts['activation']}")
    if facts["bias"]:
        reasons.append("no bias")
    if facts["scale_input"]:
        reasons.append("weights what experts give, not what they read")
    if facts["experts"] < 2:
        reasons.append("needs two experts")
    return no(*reasons) if reasons else yes()


def supports_scaled_weight(facts: Facts) -> Support:
    """Weights that are made floating-point inside the operator."""
    return no(*reasons) if (reasons := list(_quantized_refusals(facts))) else yes()


def supports_integers(facts: Facts) -> Support:
    """Weights that are multiplied as integers."""
    reasons = list(_quantized_refusals(facts))
    if facts["bits"] != 8 or group_size(facts["group"], facts["inputs"]) or facts["zero_points"]:
        reasons.append("weights of 8 bits with one scale for an output and no zero points only")
    return no(*reasons) if reasons else yes("rounds activations to 8 bits", cost=0.5)


def _quantized_refusals(facts: Facts) -> Iterator[str]:
    if facts["dtype"] not in (torch.bfloat16, torch.float16):
        yield f"computes in bfloat16 or float16, not in {facts['dtype']}"
    if max(facts["inputs"], facts["outputs"]) > MOST_FEATURES:
        yield f"takes up to {MOST_FEATURES} inputs and outputs"
    if facts["bits"] == 4 and facts["outputs"] % 8:
        yield f"packs 8 outputs of 4 bits in a word: {facts['outputs']} are no multiple of 8"
    if group_size(facts["group"], facts["inputs"]) % 32:
        yield f"groups of a multiple of 32 inputs only, not of {facts['group']}"


def supports_attention(facts: Facts) -> Support:
    """The conditions of the layout TND with a block table."""
    reasons = list(_refusals(facts))
    if reasons:
        return no(*reasons)
    own = facts["key_dim"], facts["value_dim"]
    stored = stored_sizes(*own)
    padded = () if stored == own else (f"heads of {own} are padded to {stored} in the KV cache",)
    return yes("trees of drafted tokens go to the reference", *padded)


def _refusals(facts: Facts) -> Iterator[str]:
    if facts["dtype"] not in ATTENTION_DTYPES:
        yield f"computes in bfloat16 alone, not in {facts['dtype']}"
    elif facts["kv_dtype"] != facts["dtype"]:
        yield f"pages must be {facts['dtype']} as the queries are, not {facts['kv_dtype']}"
    if not str(facts["layout"]).startswith("ascend/") or facts["page_tokens"] != BLOCK:
        yield f"takes blocks of {BLOCK} tokens as the backend's own KV store has them"
    if stored_sizes(facts["key_dim"], facts["value_dim"]) is None:
        yield f"heads of {facts['key_dim']} features: takes up to {HEAD_SIZES[-1]}"
    if facts["q_heads"] > MOST_SHARED * facts["kv_heads"]:
        yield f"more than {MOST_SHARED} query heads share a KV head"
    if facts["softcap"] is not None:
        yield "no soft-cap"
    if facts["chunk"] is not None:
        yield "no chunks, only windows"
    if facts["sinks"] and facts["value_dim"] > SINK_VALUE_DIM:
        yield f"sinks with heads of up to {SINK_VALUE_DIM} features only"
    if not facts["causal"] and facts["window"] is not None:
        yield "no window of attention to both sides"
