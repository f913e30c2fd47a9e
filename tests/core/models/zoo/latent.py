"""Decoders with latent attention: of ranks that make it absorbed, expanded, or both in turn."""

from __future__ import annotations

from .example import Example

DIMS = {
    "num_key_value_heads": 4,
    "q_lora_rank": 24,
    "kv_lora_rank": 32,  # prompts are expanded, decodes absorbed
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 12,
}
ABSORBED = {"kv_lora_rank": 10}  # twice that is less than 16 + 12: never expanded
YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 128,
    "mscale": 0.9,
    "mscale_all_dim": 1.3,
    "beta_fast": 32,
    "beta_slow": 1,
}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0, 1.5, 2.0, 3.0],
    "long_factor": [2.0, 3.0, 5.0, 9.0],
    "original_max_position_embeddings": 512,
}
DENSE = {**DIMS, "first_k_dense_replace": 3}
EXPERTS = {
    **DIMS,
    "n_routed_experts": 12,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 24,
    "first_k_dense_replace": 1,
}
GROUPS = {"n_group": 4, "topk_group": 2}

MODELS = {
    "deepseek-v3": Example(
        "DeepseekV3ForCausalLM",
        {**EXPERTS, **GROUPS, "routed_scaling_factor": 2.5, "rope_parameters": YARN},
    ),
    "deepseek-v3-one-group": Example(  # as Kimi K2
        "DeepseekV3ForCausalLM",
        {**EXPERTS, "n_group": 1, "topk_group": 1, "norm_topk_prob": False, "n_shared_experts": 2},
    ),
    "deepseek-v3-biases": Example(
        "DeepseekV3ForCausalLM",
        {
            **DENSE,
            **ABSORBED,
            "attention_bias": True,
            "rope_interleave": False,
            "rms_norm_eps": 1e-3,
        },
    ),
    "deepseek-v2": Example(
        "DeepseekV2ForCausalLM",
        {
            **EXPERTS,
            **GROUPS,
            "topk_method": "group_limited_greedy",
            "routed_scaling_factor": 4.0,
            "rope_parameters": YARN,
        },
    ),
    "deepseek-v2-lite": Example(
        "DeepseekV2ForCausalLM", {**EXPERTS, **GROUPS, "q_lora_rank": None, "v_head_dim": 32}
    ),
    "glm4-moe-lite": Example(
        "Glm4MoeLiteForCausalLM",
        {**EXPERTS, "n_group": 2, "mlp_layer_types": ["sparse", "dense", "sparse"]},
    ),
    "youtu": Example("YoutuForCausalLM", DIMS),
    "minicpm3": Example(
        "MiniCPM3ForCausalLM",
        {**DIMS, "rms_norm_eps": 1e-3, "mlp_bias": True, "rope_parameters": LONGROPE},
    ),
}
