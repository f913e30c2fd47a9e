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
V3 = {**DIMS, "first_k_dense_replace": 3}
V2 = {**DIMS, "first_k_dense_replace": 3}

MODELS = {
    "deepseek-v3-dense": Example("DeepseekV3ForCausalLM", {**V3, "rope_parameters": YARN}),
    "deepseek-v3-biases": Example(
        "DeepseekV3ForCausalLM",
        {**V3, **ABSORBED, "attention_bias": True, "rope_interleave": False, "rms_norm_eps": 1e-3},
    ),
    "deepseek-v2-dense": Example("DeepseekV2ForCausalLM", {**V2, "rope_parameters": YARN}),
    "deepseek-v2-lite-dense": Example(
        "DeepseekV2ForCausalLM", {**V2, "q_lora_rank": None, "mlp_bias": True, "v_head_dim": 32}
    ),
    "youtu": Example("YoutuForCausalLM", DIMS),
    "minicpm3": Example("MiniCPM3ForCausalLM", {**DIMS, "rms_norm_eps": 1e-3}),
}
