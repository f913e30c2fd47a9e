"""Decoders with ordinary attention and mixtures of experts."""

from __future__ import annotations

from .example import Example

QWEN = {
    "num_experts": 6,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 32,
    "num_hidden_layers": 2,
}

MODELS = {
    "mixtral": Example(
        "MixtralForCausalLM",
        {"num_local_experts": 5, "num_experts_per_tok": 2, "num_hidden_layers": 2},
    ),
    "mixtral-window": Example(
        "MixtralForCausalLM", {"sliding_window": 9, "head_dim": 32, "num_hidden_layers": 2}
    ),
    "qwen2-moe": Example("Qwen2MoeForCausalLM", {**QWEN, "shared_expert_intermediate_size": 48}),
    "qwen2-moe-mixed": Example(
        "Qwen2MoeForCausalLM",
        {
            **QWEN,
            "num_hidden_layers": 4,
            "shared_expert_intermediate_size": 48,
            "decoder_sparse_step": 2,
            "norm_topk_prob": True,
            "use_sliding_window": True,
            "sliding_window": 7,
            "max_window_layers": 2,
            "qkv_bias": False,
        },
    ),
    "qwen3-moe": Example("Qwen3MoeForCausalLM", {**QWEN, "head_dim": 32, "norm_topk_prob": True}),
    "qwen3-moe-mixed": Example(
        "Qwen3MoeForCausalLM",
        {
            **QWEN,
            "head_dim": 32,
            "num_hidden_layers": 3,
            "mlp_only_layers": [1],
            "use_sliding_window": True,
            "sliding_window": 7,
        },
    ),
}
