"""Models that transformers' code runs for us, whether or not a family describes them too.

Not part of MODELS: no family need know them. Chosen for what they ask of attention: one KV head,
keys longer than values, sinks, windows, two calls a layer, learned positions, none at all.
"""

from __future__ import annotations

from .example import Example

LATENT = {
    "num_key_value_heads": 4,
    "q_lora_rank": 24,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 12,
}
GEMMA = {"head_dim": 16, "sliding_window": 9, "query_pre_attn_scalar": 16}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None}

FOREIGN = {
    "llama": Example("LlamaForCausalLM"),
    "qwen3": Example("Qwen3ForCausalLM", {"head_dim": 32}),
    "gemma2": Example("Gemma2ForCausalLM", GEMMA),
    "gpt2": Example("GPT2LMHeadModel", {"n_positions": 512}),
    "biogpt": Example("BioGptForCausalLM"),
    "opt": Example("OPTForCausalLM", {"ffn_dim": 96, "word_embed_proj_dim": 64}),
    "persimmon": Example("PersimmonForCausalLM"),
    "stablelm": Example("StableLmForCausalLM"),
    "gpt-bigcode": Example("GPTBigCodeForCausalLM", {"n_inner": 96}),
    "minicpm3": Example("MiniCPM3ForCausalLM", LATENT),
    "youtu": Example("YoutuForCausalLM", LATENT),
    "granite-swa": Example("GraniteSWAForCausalLM", {"sliding_window": 9}),
    "modernbert-decoder": Example(
        "ModernBertDecoderForCausalLM",
        {"local_attention": 16, "pad_token_id": 0, "bos_token_id": 0, "cls_token_id": 0},
    ),
    "diffllama": Example("DiffLlamaForCausalLM"),
    "nanochat": Example("NanoChatForCausalLM"),
    "phimoe": Example("PhimoeForCausalLM", EXPERTS),
    "vaultgemma": Example("VaultGemmaForCausalLM", GEMMA),
}
