"""Decoders with ordinary attention and mixtures of experts."""

from __future__ import annotations

from .example import Example

QWEN = {
    "num_experts": 6,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 32,
    "num_hidden_layers": 2,
}

GRANITE = {
    "attention_multiplier": 0.1,
    "embedding_multiplier": 3.0,
    "logits_scaling": 4.0,
    "residual_multiplier": 0.3,
}
GPT_OSS = {
    "num_local_experts": 5,
    "num_experts_per_tok": 3,
    "head_dim": 16,
    "num_hidden_layers": 2,
}
GPT_OSS_YARN = {
    "rope_type": "yarn",
    "factor": 8.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "truncate": False,
    "original_max_position_embeddings": 64,
}
PHI_LONGROPE = {  # its short half: transformers goes on to rotate by it where the context is longer
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0, 1.1, 1.3, 1.5, 1.6, 1.8, 2.0, 2.5],
    "long_factor": [2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0],
    "short_mscale": 1.24,
    "long_mscale": 1.3,
    "original_max_position_embeddings": 256,
}
GLM = {
    "n_routed_experts": 6,
    "num_experts_per_tok": 3,
    "n_shared_experts": 2,
    "moe_intermediate_size": 32,
    "routed_scaling_factor": 2.5,
    "num_hidden_layers": 2,
}
LLAMA4 = {
    "num_local_experts": 5,
    "head_dim": 16,
    "intermediate_size_mlp": 48,
    "attention_chunk_size": 11,
    "floor_scale": 13,
    "attn_scale": 0.4,
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
    "granite-moe": Example(
        "GraniteMoeForCausalLM", {**GRANITE, "num_local_experts": 5, "num_hidden_layers": 2}
    ),
    "granite-moe-shared": Example(
        "GraniteMoeSharedForCausalLM",
        {
            **GRANITE,
            "num_experts_per_tok": 3,
            "shared_intermediate_size": 40,
            "num_hidden_layers": 2,
        },
    ),
    "olmoe": Example(
        "OlmoeForCausalLM",
        {"num_experts": 6, "num_experts_per_tok": 3, "clip_qkv": 0.8, "num_hidden_layers": 2},
    ),
    "olmoe-renormalised": Example(
        "OlmoeForCausalLM",
        {
            "num_experts": 6,
            "norm_topk_prob": True,
            "num_experts_per_tok": 2,
            "attention_bias": True,
            "num_hidden_layers": 2,
        },
    ),
    "minimax-m2": Example(
        "MiniMaxM2ForCausalLM",
        {
            "num_local_experts": 6,
            "num_experts_per_tok": 3,
            "head_dim": 16,
            "rotary_dim": 8,
            "num_hidden_layers": 2,
        },
    ),
    "phimoe": Example(
        "PhimoeForCausalLM",
        {
            "num_local_experts": 5,
            "attention_bias": True,
            "lm_head_bias": True,
            "router_jitter_noise": 0.3,
            "num_hidden_layers": 2,
        },
    ),
    "phimoe-longrope": Example(
        "PhimoeForCausalLM",
        {"num_local_experts": 5, "rope_parameters": PHI_LONGROPE, "num_hidden_layers": 2},
    ),
    "ernie4_5-moe": Example(
        "Ernie4_5_MoeForCausalLM", {"moe_num_experts": 6, "moe_k": 3, "moe_intermediate_size": 32}
    ),
    "ernie4_5-moe-mixed": Example(
        "Ernie4_5_MoeForCausalLM",
        {
            "moe_num_experts": 6,
            "moe_k": 2,
            "moe_intermediate_size": 32,
            "moe_num_shared_experts": 0,
            "moe_layer_interval": 2,
            "moe_norm_min": 0.5,
            "num_hidden_layers": 4,
        },
    ),
    "gpt-oss": Example(
        "GptOssForCausalLM",
        {**GPT_OSS, "sliding_window": 9, "rope_parameters": GPT_OSS_YARN},
    ),
    "gpt-oss-clamped": Example(
        "GptOssForCausalLM",
        {**GPT_OSS, "swiglu_limit": 0.4, "swiglu_alpha": 1.2, "attention_bias": False},
    ),
    "llama4": Example(
        "Llama4ForCausalLM", {**LLAMA4, "interleave_moe_layer_step": 2, "num_hidden_layers": 4}
    ),
    "llama4-options": Example(
        "Llama4ForCausalLM",
        {
            **LLAMA4,
            "use_qk_norm": False,
            "no_rope_layers": [0, 1],
            "num_hidden_layers": 2,
            "num_experts_per_tok": 2,
            "attention_bias": True,
            "attn_temperature_tuning": False,
        },
    ),
    "glm4-moe": Example(
        "Glm4MoeForCausalLM",
        {**GLM, "n_group": 3, "topk_group": 2, "use_qk_norm": True, "head_dim": 24},
    ),
    "glm4-moe-plain": Example(
        "Glm4MoeForCausalLM",
        {**GLM, "first_k_dense_replace": 0, "norm_topk_prob": False, "attention_bias": True},
    ),
    "dots1": Example(
        "Dots1ForCausalLM",
        {**GLM, "n_group": 1, "topk_group": 1, "sliding_window": 9, "max_window_layers": 1},
    ),
    "solar-open": Example("SolarOpenForCausalLM", {**GLM, "n_group": 2, "head_dim": 16}),
}
