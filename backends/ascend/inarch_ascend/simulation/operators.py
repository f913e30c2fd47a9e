"""The arithmetic of the operators that the backend calls, on the CPU, after the wheel's documentation.

Everything is computed in float32 and rounded once. Letters in shapes: T tokens, N heads, D head size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

COMPUTE: dict[str, Callable[..., Any]] = {}


def operator(function: Callable[..., Any]) -> Callable[..., Any]:
    COMPUTE[function.__name__] = function
    return function


@operator
def npu_rms_norm(input: Tensor, gamma: Tensor, epsilon: float = 1e-6) -> tuple[Tensor, Tensor]:
    wide = input.float()
    rstd = torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon)
    return (wide * rstd * gamma.float()).to(input.dtype), rstd


@operator
def npu_add_rms_norm(
    x1: Tensor, x2: Tensor, gamma: Tensor, epsilon: float = 1e-6
) -> tuple[Tensor, Tensor, Tensor]:
    total = x1 + x2
    out, rstd = npu_rms_norm(total, gamma, epsilon)
    return out, rstd, total


@operator
def npu_swiglu(input: Tensor, dim: int = -1) -> Tensor:
    gate, up = input.float().chunk(2, dim)
    return (gate * torch.sigmoid(gate) * up).to(input.dtype)


@operator
def npu_rotary_mul(input: Tensor, r1: Tensor, r2: Tensor, rotary_mode: str = "half") -> Tensor:
    if rotary_mode == "half":
        x1, x2 = input.float().chunk(2, -1)
        turned = torch.cat((-x2, x1), -1)
    else:
        wide = input.float()
        turned = torch.stack((-wide[..., 1::2], wide[..., ::2]), -1).flatten(-2)
    return (r1.float() * input.float() + r2.float() * turned).to(input.dtype)


@operator
def npu_scatter_pa_kv_cache(
    key: Tensor,
    value: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    slot_mapping: Tensor,
    *,
    cache_mode: str = "PA_NZ",
) -> None:
    for new, cache in ((key, key_cache), (value, value_cache)):
        cache.flatten(0, 1)[slot_mapping.long()] = new


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    actual_seq_qlen: Sequence[int],
    actual_seq_kvlen: Sequence[int],
    block_table: Tensor,
    num_query_heads: int,
    num_key_value_heads: int,
    softmax_scale: float,
    atten_mask: Tensor | None = None,
    learnable_sink: Tensor | None = None,
    pre_tokens: int = 2147483647,
    next_tokens: int = 2147483647,
    sparse_mode: int = 0,
    return_softmax_lse: bool = False,
    **unused: Any,
) -> tuple[Tensor, Tensor]:
    """Layout TND over a block table: query [T, N, D]; key, value [blocks, 128, heads * D]."""
    heads = num_key_value_heads
    value_dim = value.shape[-1] // heads
    out = query.new_zeros((*query.shape[:2], value_dim))
    sums = torch.zeros((*query.shape[:2], 1), dtype=torch.float32)
    start = 0
    for sequence, (end, length) in enumerate(zip(actual_seq_qlen, actual_seq_kvlen, strict=True)):
        blocks = block_table[sequence, : -(-length // key.shape[1])].long()
        keys, values = (
            x[blocks].flatten(0, 1)[:length].float().unflatten(-1, (heads, -1))
            for x in (key, value)
        )
        q = query[start:end].float().unflatten(1, (heads, -1))
        scores = torch.einsum("qgsd,kgd->gsqk", q, keys) * softmax_scale
        seen = _seen(end - start, length, sparse_mode, pre_tokens, next_tokens)
        scores = scores.masked_fill(~seen, -torch.inf).flatten(0, 1)  # [N, Q, K]
        if learnable_sink is not None:
            sink = learnable_sink.float()[:, None, None].expand(-1, scores.shape[1], 1)
            scores = torch.cat((scores, sink), -1)
        weights = scores.softmax(-1)[..., :length].unflatten(0, (heads, -1))
        found = torch.einsum("gsqk,kgd->qgsd", weights, values)
        out[start:end] = found.flatten(1, 2).to(out.dtype)
        sums[start:end, :, 0] = scores.logsumexp(-1).T
        start = end
    return out, sums if return_softmax_lse else torch.zeros(0)


def _seen(queries: int, keys: int, mode: int, before: int, after: int) -> Tensor:
    """bool [Q, K]. Modes 3 and 4 count from the last query and the last key."""
    distance = torch.arange(keys) - (torch.arange(queries)[:, None] + keys - queries)
    if mode == 0:
        return torch.ones(queries, keys, dtype=torch.bool)
    if mode == 3:
        return distance <= 0
    return (distance >= -before) & (distance <= after)


V2 = "npu_fused_infer_attention_score_v2"
COMPUTE[V2] = attention


def _attention_out(
    *args: Any, workspace: Tensor | None = None, out: Sequence[Tensor], **kwargs: Any
) -> tuple[Tensor, ...]:
    for target, found in zip(out, attention(*args, **kwargs), strict=True):
        if found.numel():
            target.copy_(found)
    return tuple(out)


def _attention_outputs(
    query: Tensor,
    value: Tensor,
    *,
    num_key_value_heads: int = 0,
    return_softmax_lse: bool = False,
    **unused: Any,
) -> tuple[Tensor, Tensor]:
    tokens, heads = query.shape[:2]
    value_dim = value.shape[-1] // num_key_value_heads
    lse = (tokens, heads, 1) if return_softmax_lse else (0,)
    return query.new_empty((tokens, heads, value_dim)), torch.empty(lse, dtype=torch.float32)


COMPUTE[f"{V2}.out"] = _attention_out
COMPUTE[f"_{V2}_get_max_workspace"] = lambda *_, **__: torch.empty(1024, dtype=torch.uint8)
COMPUTE[f"_{V2}_infer_output"] = _attention_outputs


@operator
def npu_grouped_matmul(
    x: Sequence[Tensor],
    weight: Sequence[Tensor],
    *,
    group_list: Tensor,
    group_list_type: int = 0,
    **unused: Any,
) -> list[Tensor]:
    rows, (each,) = x[0], weight
    out, start = rows.new_zeros((len(rows), each.shape[2])), 0
    ends = group_list.cumsum(0) if group_list_type == 1 else group_list
    for expert, end in enumerate(ends.tolist()):
        out[start:end] = (rows[start:end].float() @ each[expert].float()).to(out.dtype)
        start = end
    return [out]


@operator
def npu_convert_weight_to_int4pack(weight: Tensor, inner_k_tiles: int = 0) -> Tensor:
    """The order within a word is the operator's own affair: here the first value is the lowest."""
    eight = (weight & 15).unflatten(-1, (-1, 8)).long() << torch.arange(0, 32, 4)
    return eight.sum(-1).to(torch.int64).view(torch.int32)[..., ::2].contiguous()


@operator
def npu_weight_quant_batchmatmul(
    x: Tensor,
    weight: Tensor,
    antiquant_scale: Tensor,
    antiquant_offset: Tensor | None = None,
    quant_scale: None = None,
    quant_offset: None = None,
    bias: Tensor | None = None,
    antiquant_group_size: int = 0,
) -> Tensor:
    if weight.dtype == torch.int32:
        nibbles = (weight.unsqueeze(-1) >> torch.arange(0, 32, 4)) & 15
        weight = ((nibbles ^ 8) - 8).flatten(-2)
    inputs = weight.shape[0]
    scale, offset = (
        None if each is None else each.float().repeat_interleave(antiquant_group_size or inputs, 0)
        for each in (antiquant_scale, antiquant_offset)
    )
    assert scale is not None
    wide = weight.float() if offset is None else weight.float() + offset[:inputs]
    out = x.float() @ (wide * scale[:inputs])
    return (out if bias is None else out + bias.float()).to(x.dtype)


@operator
def npu_dynamic_quant(input: Tensor) -> tuple[Tensor, Tensor]:
    scale = input.float().abs().amax(-1) / 127
    return (input.float() / scale.unsqueeze(-1)).round().to(torch.int8), scale


@operator
def npu_quant_matmul(
    x1: Tensor,
    x2: Tensor,
    scale: Tensor,
    *,
    pertoken_scale: Tensor,
    bias: Tensor | None = None,
    output_dtype: int,
) -> Tensor:
    out = (x1.float() @ x2.float()) * scale.float() * pertoken_scale.unsqueeze(-1)
    return (out if bias is None else out + bias.float()).to(NUMBERED[output_dtype])


NUMBERED = {5: torch.float16, 15: torch.bfloat16}  # torch's numbers of dtypes


@operator
def npu_moe_init_routing_v2(
    x: Tensor, expert_idx: Tensor, *, expert_num: int, **unused: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rows sorted by expert, where each pair of token and expert went, rows of each expert."""
    order = expert_idx.flatten().argsort(stable=True)
    places = torch.empty_like(order).scatter_(0, order, torch.arange(len(order)))
    counts = expert_idx.flatten().bincount(minlength=expert_num)
    rows = x[order // expert_idx.shape[1]]
    return rows, places.int(), counts, torch.empty(len(order), dtype=torch.float32)


@operator
def npu_moe_token_unpermute(
    permuted_tokens: Tensor, sorted_indices: Tensor, probs: Tensor
) -> Tensor:
    rows = permuted_tokens.float()[sorted_indices.long()].unflatten(0, probs.shape)
    return (rows * probs.float().unsqueeze(-1)).sum(1).to(permuted_tokens.dtype)
