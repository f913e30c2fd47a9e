"""Decoders with recurrent states: linear attention, state spaces, and mixtures of them with attention."""

from __future__ import annotations

from .example import Example

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
    "mlp_only_layers": [1],
}

MODELS = {
    "mamba2": Example("Mamba2ForCausalLM", MAMBA),
    "qwen3-next-dense": Example("Qwen3NextForCausalLM", {**DELTA, "mlp_only_layers": [0, 1, 2]}),
    "qwen3-next": Example("Qwen3NextForCausalLM", {**DELTA, **EXPERTS}),
    "qwen3.5-text": Example("Qwen3_5ForCausalLM", DELTA),
}
