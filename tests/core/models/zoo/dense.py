"""Decoders with ordinary attention and one feed-forward a layer."""

from __future__ import annotations

from .example import Example
from .renaming import as_exaone, as_internlm2, as_internlm3, as_text_of

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
LONGROPE = {  # three quarters of each head: phi-4-mini
    "rope_type": "longrope",
    "rope_theta": 1000.0,
    "partial_rotary_factor": 0.75,
    "short_factor": [1.0, 1.1, 1.3, 1.6, 2.0, 2.5],
    "long_factor": [1.0, 1.5, 2.0, 3.0, 4.0, 6.0],
}
SLIDES = "sliding_attention"
WINDOWS = {"use_sliding_window": True, "sliding_window": 7}
GEMMA3 = {
    "head_dim": 24,
    "sliding_window": 9,
    "layer_types": [SLIDES, "full_attention", SLIDES],
    "query_pre_attn_scalar": 10,
    "final_logit_softcapping": 3.0,
    "rope_parameters": {"full_attention": LINEAR, SLIDES: {"rope_theta": 50.0}},
}

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
    "arcee": Example("ArceeForCausalLM", {"mlp_bias": True}),
    "cohere": Example("CohereForCausalLM", {"logit_scale": 0.3}),
    "cohere-qk-norm": Example("CohereForCausalLM", {"use_qk_norm": True, "attention_bias": True}),
    "cohere2": Example("Cohere2ForCausalLM", {"sliding_window": 9, "sliding_window_pattern": 2}),
    "ernie": Example("Ernie4_5ForCausalLM", {"use_bias": True, "head_dim": 24}),
    "exaone": Example("LlamaForCausalLM", {"rope_parameters": LLAMA3}, stored=as_exaone),
    "exaone4": Example("Exaone4ForCausalLM", {"sliding_window": 9, "sliding_window_pattern": 2}),
    "exaone4-full": Example(
        "Exaone4ForCausalLM", {"sliding_window": None, "layer_types": ["full_attention"] * 3}
    ),
    "falcon": Example("FalconForCausalLM", {"bias": True}),
    "falcon-multi-head-sequential": Example(
        "FalconForCausalLM", {"multi_query": False, "parallel_attn": False, "ffn_hidden_size": 96}
    ),
    "falcon-new": Example(
        "FalconForCausalLM", {"new_decoder_architecture": True, "num_kv_heads": 2}
    ),
    "helium": Example("HeliumForCausalLM", {"head_dim": 16}),
    "hunyuan": Example("HunYuanDenseV1ForCausalLM", {"head_dim": 16}),
    "internlm2": Example("LlamaForCausalLM", {"attention_bias": True}, stored=as_internlm2),
    "internlm3": Example(
        "LlamaForCausalLM",
        {"head_dim": 24, "attention_bias": True, "mlp_bias": True},
        stored=as_internlm3,
    ),
    "nemotron": Example("NemotronForCausalLM"),
    "olmo": Example("OlmoForCausalLM", {"clip_qkv": 0.7}),
    "opt": Example("OPTForCausalLM", {"ffn_dim": 96, "word_embed_proj_dim": 64}),
    "phi": Example("PhiForCausalLM"),
    "phi-qk-norm": Example(
        "PhiForCausalLM", {"qk_layernorm": True, "hidden_act": "gelu", "tie_word_embeddings": True}
    ),
    "seed-oss": Example("SeedOssForCausalLM", {"head_dim": 24}),
    "stablelm": Example("StableLmForCausalLM", {"use_qkv_bias": True}),
    "stablelm-parallel": Example("StableLmForCausalLM", {"use_parallel_residual": True}),
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
        {"head_dim": 24, "sliding_window": 9, "layer_types": [SLIDES, "full_attention", SLIDES]},
    ),
    "ministral3": Example("Ministral3ForCausalLM", {"head_dim": 16, "rope_parameters": MINISTRAL}),
    "olmo2": Example("Olmo2ForCausalLM"),
    "olmo3": Example(
        "Olmo3ForCausalLM",
        {
            "sliding_window": 9,
            "layer_types": [SLIDES, "full_attention", SLIDES],
            "rope_parameters": {"full_attention": YARN, SLIDES: {"rope_theta": 50.0}},
        },
    ),
    "phi3-longrope": Example(
        "Phi3ForCausalLM",
        {"rope_parameters": LONGROPE, "original_max_position_embeddings": 512}
        | {"max_position_embeddings": 1024},
    ),
    "phi3": Example("Phi3ForCausalLM", {"sliding_window": 9}),
    "smollm3": Example("SmolLM3ForCausalLM", {"no_rope_layers": [1, 0, 1]}),
    "starcoder2": Example("Starcoder2ForCausalLM"),
    "starcoder2-options": Example(
        "Starcoder2ForCausalLM", {"sliding_window": 9, "use_bias": False}
    ),
    "gemma": Example("GemmaForCausalLM", {"head_dim": 24}),
    "gemma2": Example("Gemma2ForCausalLM", {"head_dim": 24, "sliding_window": 9}),
    "gemma3": Example("Gemma3ForCausalLM", GEMMA3),
    "gemma3-with-images": Example(
        "Gemma3ForCausalLM", GEMMA3, stored=as_text_of("Gemma3ForConditionalGeneration")
    ),
    "ministral3-with-images": Example(
        "Ministral3ForCausalLM",
        {"head_dim": 16, "rope_parameters": MINISTRAL},
        stored=as_text_of("Mistral3ForConditionalGeneration"),
    ),
}
