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
MINISTRAL = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 16,
    "llama_4_scaling_beta": 0.5,
}
SLIDES = "sliding_attention"
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
    "apertus": Example("ApertusForCausalLM"),
    "cohere": Example("CohereForCausalLM", {"logit_scale": 0.3}),
    "cohere-qk-norm": Example("CohereForCausalLM", {"use_qk_norm": True, "attention_bias": True}),
    "cohere2": Example("Cohere2ForCausalLM", {"sliding_window": 9, "sliding_window_pattern": 2}),
    "exaone4": Example("Exaone4ForCausalLM", {"sliding_window": 9, "sliding_window_pattern": 2}),
    "exaone4-full": Example("Exaone4ForCausalLM", {"sliding_window": None}),
    "glm": Example("GlmForCausalLM", {"head_dim": 24}),
    "glm4": Example("Glm4ForCausalLM", {"head_dim": 24, "attention_bias": False}),
    "gpt2": Example("GPT2LMHeadModel"),
    "gpt2-options": Example(
        "GPT2LMHeadModel",
        {
            "activation_function": "gelu",
            "n_inner": 96,
            "scale_attn_by_inverse_layer_idx": True,
            "tie_word_embeddings": False,
        },
    ),
    "gpt-neox": Example("GPTNeoXForCausalLM"),
    "gpt-neox-sequential": Example(
        "GPTNeoXForCausalLM", {"use_parallel_residual": False, "attention_bias": False}
    ),
    "granite": Example(
        "GraniteForCausalLM",
        {
            "attention_multiplier": 0.1,
            "embedding_multiplier": 3.0,
            "logits_scaling": 4.0,
            "residual_multiplier": 0.3,
        },
    ),
    "ministral": Example(
        "MinistralForCausalLM",
        {"sliding_window": 9, "layer_types": [SLIDES, "full_attention", SLIDES]},
    ),
    "ministral3": Example("Ministral3ForCausalLM", {"head_dim": 16, "rope_parameters": MINISTRAL}),
    "olmo2": Example("Olmo2ForCausalLM"),
    "olmo3": Example("Olmo3ForCausalLM", {"sliding_window": 9, "num_hidden_layers": 4}),
    "phi3": Example("Phi3ForCausalLM", {"sliding_window": 9}),
    "smollm3": Example("SmolLM3ForCausalLM", {"no_rope_layers": [1, 0, 1]}),
    "starcoder2": Example("Starcoder2ForCausalLM"),
    "starcoder2-options": Example(
        "Starcoder2ForCausalLM", {"sliding_window": 9, "use_bias": False}
    ),
    "gemma": Example("GemmaForCausalLM", {"head_dim": 24}),
    "gemma2": Example("Gemma2ForCausalLM", {"head_dim": 24, "sliding_window": 9}),
}
