"""Decoders with recurrent states: linear attention, state spaces, and mixtures of them with attention."""

from __future__ import annotations

from .example import Example
from .renaming import as_text_of

MAMBA = {
    "hidden_size": 32,
    "num_heads": 8,
    "head_dim": 8,
    "state_size": 12,
    "n_groups": 2,
    "num_hidden_layers": 2,
    "chunk_size": 32,
}
DELTA = {
    "head_dim": 32,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 12,
    "layer_types": ["linear_attention", "full_attention", "linear_attention"],
}
EXPERTS = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "shared_expert_intermediate_size": 40,
}  # Of two layers: in three, rounding alone moves a logit by more than tests allow, here and there.
TWO = {"num_hidden_layers": 2, "layer_types": ["linear_attention", "full_attention"]}

FALCON = {
    "num_hidden_layers": 2,
    "mamba_d_ssm": 48,
    "mamba_n_heads": 6,
    "mamba_d_state": 12,
    "mamba_n_groups": 2,
    "mamba_chunk_size": 32,
}
SCALED = {
    "mamba_rms_norm": True,
    "mamba_proj_bias": True,
    "projectors_bias": True,
    "mlp_bias": True,
    "embedding_multiplier": 1.5,
    "lm_head_multiplier": 0.5,
    "mlp_multipliers": [0.8, 1.2],
    "key_multiplier": 0.7,
    "attention_in_multiplier": 1.1,
    "attention_out_multiplier": 0.9,
    "ssm_in_multiplier": 1.3,
    "ssm_out_multiplier": 0.6,
    "ssm_multipliers": [0.5, 0.9, 1.1, 1.2, 0.8],
}
NEMOTRON = {
    "head_dim": 16,
    "layers_block_type": ["linear_attention", "mlp", "full_attention", "linear_attention", "mlp"],
    "num_hidden_layers": 5,
    "mamba_num_heads": 6,
    "mamba_head_dim": 8,
    "ssm_state_size": 12,
    "n_groups": 2,
    "chunk_size": 32,
    "mlp_bias": True,
}
KIMI = {
    "layer_types": ["linear_attention", "full_attention", "linear_attention"],
    "num_key_value_heads": 4,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 12,
    "v_head_dim": 10,
    "linear_head_dim": 8,
    "linear_num_heads": 3,
    "num_experts": 4,
    "num_experts_per_token": 2,
    "moe_intermediate_size": 24,
}

MODELS = {
    "kimi-linear": Example("KimiLinearForCausalLM", KIMI),
    "mamba2": Example("Mamba2ForCausalLM", MAMBA),
    "qwen3-next-dense": Example("Qwen3NextForCausalLM", {**DELTA, "mlp_only_layers": [0, 1, 2]}),
    "qwen3-next": Example(
        "Qwen3NextForCausalLM", {**DELTA, **EXPERTS, **TWO, "mlp_only_layers": [1]}
    ),
    "falcon-h1": Example("FalconH1ForCausalLM", FALCON),
    "falcon-h1-scaled": Example("FalconH1ForCausalLM", {**FALCON, **SCALED}),
    "nemotron-h": Example("NemotronHForCausalLM", NEMOTRON),
    "qwen3.5-text": Example("Qwen3_5ForCausalLM", DELTA),
    "qwen3.5-with-images": Example(
        "Qwen3_5ForCausalLM", DELTA, stored=as_text_of("Qwen3_5ForConditionalGeneration")
    ),
    "qwen3.5-moe-text": Example("Qwen3_5MoeForCausalLM", {**DELTA, **EXPERTS, **TWO}),
    "qwen3.5-moe-with-images": Example(
        "Qwen3_5MoeForCausalLM",
        {**DELTA, **EXPERTS, **TWO},
        stored=as_text_of("Qwen3_5MoeForConditionalGeneration"),
    ),
}
