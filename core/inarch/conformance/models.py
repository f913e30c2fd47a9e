"""Tiny models with random weights, one of each kind that a backend may find hard."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SMALL: dict[str, Any] = {
    "vocab_size": 101,
    "hidden_size": 96,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
WINDOWS = {
    "head_dim": 32,
    "use_sliding_window": True,
    "sliding_window": 20,
    "layer_types": ["full_attention", "sliding_attention"],
}
EXPERTS = {
    "head_dim": 64,
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 48,
}
LATENT = {
    "num_key_value_heads": 4,
    "q_lora_rank": 24,
    "kv_lora_rank": 32,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 16,
    "v_head_dim": 16,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "first_k_dense_replace": 1,
    "n_group": 2,
    "topk_group": 1,
}
HYBRID = {
    "head_dim": 32,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "layer_types": ["linear_attention", "full_attention"],
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "shared_expert_intermediate_size": 32,
}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {  # name -> architecture, changes
    "dense": ("LlamaForCausalLM", {"head_dim": 64}),
    "windows": ("Qwen3ForCausalLM", WINDOWS),
    "experts": ("Qwen3MoeForCausalLM", EXPERTS),
    "latent": ("DeepseekV3ForCausalLM", LATENT),
    "recurrent": ("Qwen3NextForCausalLM", HYBRID),
}


def save(name: str, folder: Path) -> None:
    """Make the model, the same every time, and save it with a tokenizer of one byte a token."""
    import torch
    import transformers

    architecture, changes = MODELS[name]
    kind = getattr(transformers, architecture)
    torch.manual_seed(sum(name.encode()))
    model = kind(kind.config_class(**(SMALL | changes)))
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            parameter.normal_(mean=float("norm" in key.lower()), std=0.15)
    model.save_pretrained(folder)
    _save_tokenizer(folder)


def _save_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())[: SMALL["vocab_size"]]
    tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, [], unk_token="!"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({}))
