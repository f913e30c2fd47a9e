"""What each operator takes, as torch-npu's documentation says in words: one function for each.

Only the operators that the backend calls are known. `checking` holds every call to these, and to the
wheel's Meta functions.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from inarch_ascend.simulation.memory import NPUError

FLOATS = (torch.float16, torch.bfloat16, torch.float32)
MASK = (2048, 2048)
RULES: dict[str, Callable[..., None]] = {}  # by the operator's name


def need(condition: bool, message: str) -> None:
    if not condition:
        raise NPUError(message)


def rule(function: Callable[..., None]) -> Callable[..., None]:
    RULES[function.__name__] = function
    return function


@rule
def npu_rms_norm(input: Tensor, gamma: Tensor, epsilon: float) -> None:
    need(input.dtype in FLOATS, f"npu_rms_norm: {input.dtype}")
    need(gamma.dtype == input.dtype, f"npu_rms_norm: gamma {gamma.dtype}, input {input.dtype}")
    need(gamma.shape == input.shape[-1:], f"npu_rms_norm: gamma {gamma.shape} of {input.shape}")
    need(2 <= input.dim() <= 8, f"npu_rms_norm: {input.dim()} dimensions")


@rule
def npu_add_rms_norm(x1: Tensor, x2: Tensor, gamma: Tensor, epsilon: float) -> None:
    need((x1.shape, x1.dtype) == (x2.shape, x2.dtype), "npu_add_rms_norm: x1 and x2 differ")
    npu_rms_norm(x1, gamma, epsilon)


@rule
def npu_swiglu(input: Tensor, dim: int) -> None:
    need(input.dtype in FLOATS, f"npu_swiglu: {input.dtype}")
    need(input.shape[dim] % 2 == 0, f"npu_swiglu: {input.shape[dim]} features")


@rule
def npu_rotary_mul(input: Tensor, r1: Tensor, r2: Tensor, rotary_mode: str) -> None:
    """input [B, S, N, D] with r1 and r2 [1, S, 1, D]."""
    batch, length, heads, size = input.shape
    need(input.dtype in FLOATS, f"npu_rotary_mul: {input.dtype}")
    need(r1.dtype == r2.dtype == input.dtype, f"npu_rotary_mul: {r1.dtype} for {input.dtype}")
    need(r1.shape == r2.shape == (1, length, 1, size), f"npu_rotary_mul: r1 {r1.shape}")
    need(size < 896 and size % 2 == 0, f"npu_rotary_mul: {size} features")
    need(batch < 1000 and heads < 1000, f"npu_rotary_mul: {batch} x {heads}")
    need(rotary_mode in ("half", "interleave"), f"npu_rotary_mul: {rotary_mode}")
    need(rotary_mode == "half" or batch * heads < 1000, f"npu_rotary_mul: {heads} heads")


@rule
def npu_scatter_pa_kv_cache(
    key: Tensor,
    value: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    slot_mapping: Tensor,
    cache_mode: str | None,
) -> None:
    """The second case: key [T, N, D], caches [blocks, block_size, N, D], slot_mapping [T]."""
    name = "npu_scatter_pa_kv_cache"
    everything = (key, value, key_cache, value_cache, slot_mapping)
    need(all(x.is_contiguous() for x in everything), f"{name}: not contiguous")
    need(len({x.dtype for x in everything[:4]}) == 1, f"{name}: dtypes differ")
    need(slot_mapping.dtype in (torch.int32, torch.int64), f"{name}: slots {slot_mapping.dtype}")
    need(cache_mode in (None, "Norm"), f"{name}: the cache is in plain order, not {cache_mode}")
    need(slot_mapping.shape == key.shape[:1], f"{name}: slots {slot_mapping.shape}")
    for new, cache in ((key, key_cache), (value, value_cache)):
        need(new.dim() == 3 and cache.dim() == 4, f"{name}: {new.shape} into {cache.shape}")
        need(new.shape[1:] == cache.shape[2:], f"{name}: {new.shape} into {cache.shape}")
    size = key_cache.shape[1]
    need(
        bool((slot_mapping >= 0).all() and (slot_mapping < len(key_cache) * size).all()),
        f"{name}: a slot outside the cache",
    )
    own = slot_mapping[slot_mapping >= size]  # of the null block any may repeat: nobody reads it
    need(len(own.unique()) == len(own), f"{name}: two tokens for one slot")


@rule
def npu_fused_infer_attention_score_v2(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    actual_seq_qlen: list[int] | None,
    actual_seq_kvlen: list[int] | None,
    block_table: Tensor | None,
    atten_mask: Tensor | None,
    learnable_sink: Tensor | None,
    num_query_heads: int,
    num_key_value_heads: int,
    softmax_scale: float,
    pre_tokens: int,
    next_tokens: int,
    input_layout: str,
    sparse_mode: int,
    block_size: int,
    inner_precise: int,
    return_softmax_lse: bool,
    query_quant_mode: int,
    key_quant_mode: int,
    value_quant_mode: int,
) -> None:
    """Layout TND with paged K and V; quantization is not for us."""
    name = "npu_fused_infer_attention_score_v2"
    need(query_quant_mode == key_quant_mode == value_quant_mode == 0, f"{name}: quantized")
    need(input_layout == "TND", f"{name}: layout {input_layout}")
    need(all(x.is_contiguous() for x in (query, key, value)), f"{name}: not contiguous")
    need(query.dtype in attention_dtypes, f"{name}: {query.dtype}")
    need(key.dtype == value.dtype == query.dtype, f"{name}: {key.dtype} for {query.dtype}")
    need(query.dim() == 3 and query.shape[1] == num_query_heads, f"{name}: query {query.shape}")
    need(num_query_heads % num_key_value_heads == 0, f"{name}: {num_query_heads} heads")
    need(num_query_heads // num_key_value_heads <= 64, f"{name}: {num_query_heads} heads")
    need(block_size % 128 == 0 and 128 <= block_size <= 512, f"{name}: blocks of {block_size}")
    for cache in (key, value):
        need(cache.dim() == 3 and cache.shape[1] == block_size, f"{name}: pages {cache.shape}")
        need(cache.shape[2] <= 65535, f"{name}: {cache.shape[2]} features of a token")
    sizes = query.shape[2], *(x.shape[2] / num_key_value_heads for x in (key, value))
    need(sizes in ((128, 128, 128), (192, 192, 128), (192, 192, 192)), f"{name}: heads {sizes}")
    _lengths(name, query, actual_seq_qlen, actual_seq_kvlen, sparse_mode)
    assert actual_seq_kvlen is not None
    need(block_table is not None, f"{name}: no block table")
    assert block_table is not None
    need(block_table.dtype == torch.int32 and block_table.dim() == 2, f"{name}: block table")
    need(len(block_table) == len(actual_seq_kvlen), f"{name}: {len(block_table)} rows of blocks")
    need(block_table.shape[1] * block_size >= max(actual_seq_kvlen), f"{name}: too few blocks")
    _masking(name, atten_mask, sparse_mode, pre_tokens, next_tokens)
    if learnable_sink is not None:
        need(learnable_sink.dtype == torch.bfloat16, f"{name}: sinks {learnable_sink.dtype}")
        need(learnable_sink.shape == (num_query_heads,), f"{name}: sinks {learnable_sink.shape}")
        need(sizes[2] <= 128, f"{name}: sinks with values of {sizes[2]} features")


# In the documentation bfloat16 alone; tests that compare tokens exactly add float32.
attention_dtypes = [torch.bfloat16]


def _lengths(
    name: str, query: Tensor, q_ends: list[int] | None, kv_lens: list[int] | None, mode: int
) -> None:
    need(isinstance(q_ends, list) and isinstance(kv_lens, list), f"{name}: lengths are host lists")
    assert q_ends is not None
    assert kv_lens is not None
    need(all(type(x) is int for x in (*q_ends, *kv_lens)), f"{name}: lengths are Python integers")
    need(0 < len(q_ends) <= 4096, f"{name}: {len(q_ends)} sequences")
    need(len(q_ends) == len(kv_lens), f"{name}: {len(q_ends)} and {len(kv_lens)} lengths")
    need(q_ends[-1] == len(query) <= 1 << 20, f"{name}: {q_ends[-1]} of {len(query)} tokens")
    starts = [0, *q_ends[:-1]]
    queries = [end - start for start, end in zip(starts, q_ends, strict=True)]
    need(min(queries) >= 0, f"{name}: ends {q_ends} fall")
    if mode == 3:
        fits = all(q <= k for q, k in zip(queries, kv_lens, strict=True))
        need(fits, f"{name}: more queries {queries} than keys {kv_lens}")


def _masking(name: str, mask: Tensor | None, mode: int, before: int, after: int) -> None:
    need(mode in (0, 3, 4), f"{name}: sparse_mode {mode} in the layout TND")
    if mode == 0:
        need(mask is None, f"{name}: a mask without a sparse mode")
        return
    need(mask is not None, f"{name}: sparse_mode {mode} without a mask")
    assert mask is not None
    need(mask.dtype in (torch.bool, torch.int8, torch.uint8), f"{name}: mask {mask.dtype}")
    need(mask.shape == MASK and mask.is_contiguous(), f"{name}: mask {mask.shape}")
    future = torch.ones(MASK, dtype=torch.bool).triu(1)
    need(torch.equal(mask.bool(), future), f"{name}: the mask must hide what comes later")
    if mode == 4:
        need(before >= 0 and after == 0, f"{name}: from {before} before to {after} after")


@rule
def npu_grouped_matmul(
    x: list[Tensor],
    weight: list[Tensor],
    group_list: Tensor | None,
    split_item: int,
    group_type: int | None,
    group_list_type: int,
    act_type: int,
) -> None:
    """One x [M, K], one weight [E, K, N], rows sorted by expert.

    group_list says where the rows of each end (group_list_type 0), or how many they are (1).
    """
    name = "npu_grouped_matmul"
    need(len(x) == len(weight) == 1, f"{name}: {len(x)} inputs, {len(weight)} weights")
    (rows,), (each,) = x, weight
    need(rows.dtype == each.dtype and rows.dtype in FLOATS, f"{name}: {rows.dtype}, {each.dtype}")
    need(rows.dim() == 2 and each.dim() == 3, f"{name}: {rows.shape} by {each.shape}")
    need(rows.shape[1] == each.shape[1], f"{name}: {rows.shape} by {each.shape}")
    need(rows.is_contiguous() and each.is_contiguous(), f"{name}: not contiguous")
    need(isinstance(group_list, Tensor), f"{name}: the groups must be on the NPU")
    assert group_list is not None
    need(group_list.dtype == torch.int64, f"{name}: groups {group_list.dtype}")
    need(group_list.shape == each.shape[:1], f"{name}: groups {group_list.shape}")
    need((split_item, group_type, act_type) == (3, 0, 0), f"{name}: attributes")
    need(group_list_type in (0, 1), f"{name}: group_list_type {group_list_type}")
    ends = group_list if group_list_type == 0 else group_list.cumsum(0)
    need(group_list_type == 0 or len(group_list) > 1, f"{name}: one expert")
    rising = torch.equal(ends, ends.sort().values)
    need(rising and int(ends[-1]) == len(rows), f"{name}: groups {group_list.tolist()}")


@rule
def npu_convert_weight_to_int4pack(weight: Tensor, inner_k_tiles: int) -> None:
    name = "npu_convert_weight_to_int4pack"
    need(weight.dtype == torch.int32 and weight.is_contiguous(), f"{name}: {weight.dtype}")
    need(weight.dim() == 2 and weight.shape[1] % 8 == 0, f"{name}: {weight.shape}")
    need(bool((weight >= -8).all() and (weight <= 7).all()), f"{name}: beyond 4 bits")


@rule
def npu_weight_quant_batchmatmul(
    x: Tensor,
    weight: Tensor,
    antiquant_scale: Tensor,
    antiquant_offset: Tensor | None,
    bias: Tensor | None,
    antiquant_group_size: int,
    inner_precise: int,
) -> None:
    name = "npu_weight_quant_batchmatmul"
    need(x.dtype in (torch.float16, torch.bfloat16), f"{name}: {x.dtype}")
    need(weight.dtype in (torch.int8, torch.int32), f"{name}: weight {weight.dtype}")
    need(x.dim() == weight.dim() == 2 and x.shape[1] == len(weight), f"{name}: {x.shape}")
    outputs = weight.shape[1] * (8 if weight.dtype == torch.int32 else 1)
    need(max(len(weight), outputs) <= 65535, f"{name}: weight {weight.shape}")
    need(x.numel() > 0, f"{name}: nothing to multiply")
    inputs, group = len(weight), antiquant_group_size
    need(group == 0 or (32 <= group < inputs and group % 32 == 0), f"{name}: groups of {group}")
    shape = (-(-inputs // group) if group else 1, outputs)
    for each in filter(lambda part: part is not None, (antiquant_scale, antiquant_offset)):
        assert each is not None
        need(each.dtype == x.dtype, f"{name}: scales {each.dtype} for {x.dtype}")
        need(each.shape == shape, f"{name}: scales {each.shape}, not {shape}")
    if bias is not None:
        due = torch.float32 if x.dtype == torch.bfloat16 else torch.float16
        need(bias.dtype == due and bias.is_contiguous(), f"{name}: bias {bias.dtype}")
        need(bias.shape == (outputs,), f"{name}: bias {bias.shape}")


@rule
def npu_dynamic_quant(input: Tensor, quant_mode: str, dst_type_max: float) -> None:
    name = "npu_dynamic_quant"
    need(input.dtype in (torch.float16, torch.bfloat16), f"{name}: {input.dtype}")
    need(input.dim() > 1 and quant_mode == "pertoken" and not dst_type_max, f"{name}: {quant_mode}")


@rule
def npu_quant_matmul(
    x1: Tensor,
    x2: Tensor,
    scale: Tensor,
    pertoken_scale: Tensor | None,
    bias: Tensor | None,
    output_dtype: int | None,
) -> None:
    """Integers of 8 bits, a scale for each token and each output."""
    name = "npu_quant_matmul"
    need(x1.dtype == x2.dtype == torch.int8, f"{name}: {x1.dtype} by {x2.dtype}")
    need(x1.dim() == x2.dim() == 2 and x1.shape[1] == len(x2), f"{name}: {x1.shape}, {x2.shape}")
    need(max(x2.shape) <= 65535, f"{name}: weight {x2.shape}")
    need(scale.shape == x2.shape[1:], f"{name}: scale {scale.shape}")
    need(pertoken_scale is not None, f"{name}: no scale of the tokens")
    assert pertoken_scale is not None
    need(pertoken_scale.dtype == torch.float32, f"{name}: {pertoken_scale.dtype}")
    need(pertoken_scale.shape == x1.shape[:1], f"{name}: {pertoken_scale.shape}")
    need(output_dtype in (5, 15), f"{name}: output {output_dtype}")
    narrow = torch.float16 if output_dtype == 5 else torch.bfloat16
    need(scale.dtype in (torch.float32, torch.bfloat16), f"{name}: scale {scale.dtype}")
    need(scale.dtype == torch.float32 or output_dtype == 15, f"{name}: scale {scale.dtype}")
    if bias is not None:
        need(bias.dtype in (torch.int32, torch.float32, narrow), f"{name}: bias {bias.dtype}")


@rule
def npu_moe_init_routing_v2(
    x: Tensor,
    expert_idx: Tensor,
    active_num: int,
    expert_capacity: int,
    expert_num: int,
    drop_pad_mode: int,
    expert_tokens_num_type: int,
    expert_tokens_num_flag: bool,
    quant_mode: int,
    active_expert_range: list[int],
    row_idx_type: int,
) -> None:
    """All rows, unquantized, with the rows of each expert counted."""
    name = "npu_moe_init_routing_v2"
    need(x.dtype in FLOATS and x.dim() == 2, f"{name}: {x.dtype} {x.shape}")
    need(expert_idx.dtype == torch.int32, f"{name}: experts {expert_idx.dtype}")
    need(active_num in (-1, 0, expert_idx.numel()), f"{name}: active_num {active_num}")
    need(0 < expert_num <= 10240, f"{name}: {expert_num} experts")
    need(active_expert_range == [0, expert_num], f"{name}: range {active_expert_range}")
    inside = bool((expert_idx >= 0).all() and (expert_idx < expert_num).all())
    need(inside, f"{name}: an expert outside 0..{expert_num - 1}")
    need(drop_pad_mode == 0 and quant_mode == -1, f"{name}: modes")
    need(
        expert_tokens_num_type == 1 and expert_tokens_num_flag, f"{name}: counts are not asked for"
    )
    need(row_idx_type == 0, f"{name}: row_idx_type {row_idx_type}")


@rule
def npu_moe_token_unpermute(
    permuted_tokens: Tensor, sorted_indices: Tensor, probs: Tensor | None, padded_mode: bool
) -> None:
    name = "npu_moe_token_unpermute"
    need(probs is not None and not padded_mode, f"{name}: modes")
    assert probs is not None
    need(permuted_tokens.dtype == probs.dtype == torch.bfloat16, f"{name}: {probs.dtype}")
    need(sorted_indices.dtype in (torch.int32, torch.int64), f"{name}: {sorted_indices.dtype}")
    need(probs.numel() == len(sorted_indices) == len(permuted_tokens), f"{name}: {probs.shape}")
