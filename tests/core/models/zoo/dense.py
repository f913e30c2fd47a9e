"""Decoders with ordinary attention and one feed-forward a layer."""

from __future__ import annotations

from .example import Example

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 1000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 128,
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 128,
}
LINEAR = {"rope_type": "linear", "rope_theta": 500.0, "factor": 3.0}
WINDOWS = {"use_sliding_window": True, "sliding_window": 7}

MODELS = {
    "llama": Example("LlamaForCausalLM"),
    "llama-multi-head": Example("LlamaForCausalLM", {"num_key_value_heads": None}),
    "llama-biases": Example("LlamaForCausalLM", {"attention_bias": True, "mlp_bias": True}),
    "llama-tied": Example("LlamaForCausalLM", {"tie_word_embeddings": True}),
    "llama-rope-llama3": Example("LlamaForCausalLM", {"rope_parameters": LLAMA3}),
    "llama-rope-linear": Example("LlamaForCausalLM", {"rope_parameters": LINEAR}),
    "llama-gelu": Example(
        "LlamaForCausalLM",
        {"hidden_act": "gelu_pytorch_tanh", "head_dim": 24, "rms_norm_eps": 1e-3},
    ),
    "mistral": Example("MistralForCausalLM", {"sliding_window": None}),
    "mistral-window": Example("MistralForCausalLM", {"sliding_window": 9, "head_dim": 32}),
    "qwen2": Example("Qwen2ForCausalLM", {"tie_word_embeddings": True}),
    "qwen2-windows": Example("Qwen2ForCausalLM", {**WINDOWS, "max_window_layers": 1}),
    "qwen2-rope-yarn": Example("Qwen2ForCausalLM", {"rope_parameters": YARN}),
    "qwen3": Example("Qwen3ForCausalLM", {"head_dim": 32}),
    "qwen3-windows": Example(
        "Qwen3ForCausalLM",
        {
            **WINDOWS,
            "head_dim": 16,
            "attention_bias": True,
            "layer_types": ["full_attention", "sliding_attention", "full_attention"],
        },
    ),
    "gemma": Example("GemmaForCausalLM", {"head_dim": 24}),
    "gemma2": Example("Gemma2ForCausalLM", {"head_dim": 24, "sliding_window": 9}),
}
