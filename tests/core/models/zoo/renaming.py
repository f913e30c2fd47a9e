"""Stores a Llama as architectures do that transformers does not have: the same numbers, other names.

The oracle of these is that Llama itself. What is written here is what their published files hold.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

EXAONE = {
    "model.embed_tokens": "transformer.wte",
    "model.layers": "transformer.h",
    "model.norm": "transformer.ln_f",
    "input_layernorm": "ln_1",
    "post_attention_layernorm": "ln_2",
    "self_attn.o_proj": "attn.attention.out_proj",
    "self_attn": "attn.attention",
    "mlp.gate_proj": "mlp.c_fc_0",
    "mlp.up_proj": "mlp.c_fc_1",
    "mlp.down_proj": "mlp.c_proj",
}
EXAONE_KEYS = {
    "num_hidden_layers": "num_layers",
    "rms_norm_eps": "layer_norm_epsilon",
    "hidden_act": "activation_function",
}
INTERNLM2 = {
    "model.embed_tokens": "model.tok_embeddings",
    "lm_head": "output",
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.o_proj": "attention.wo",
    "mlp.gate_proj": "feed_forward.w1",
    "mlp.up_proj": "feed_forward.w3",
    "mlp.down_proj": "feed_forward.w2",
}


def as_exaone(folder: Path) -> None:
    rewrite_tensors(folder, lambda tensors: renamed(tensors, EXAONE))
    rewrite_config(folder, "ExaoneForCausalLM", EXAONE_KEYS)


def as_internlm2(folder: Path) -> None:
    """q, k and v of a KV group side by side in one tensor; one key for all biases of attention."""
    config = json.loads((folder / "config.json").read_text())
    groups = config["num_key_value_heads"]

    def fused(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        found = dict(tensors)
        for name in [name for name in tensors if ".q_proj." in name]:
            parts = (found.pop(name.replace("q_proj", f"{part}_proj")) for part in "qkv")
            groups_of_parts = [part.unflatten(0, (groups, -1)) for part in parts]
            wqkv = name.replace("self_attn.q_proj", "attention.wqkv")
            found[wqkv] = torch.cat(groups_of_parts, 1).flatten(0, 1)
        return renamed(found, INTERNLM2)

    rewrite_tensors(folder, fused)
    rewrite_config(folder, "InternLM2ForCausalLM", {"attention_bias": "bias"})


def as_internlm3(folder: Path) -> None:
    keys = {"attention_bias": "qkv_bias", "mlp_bias": "bias"}
    rewrite_config(folder, "InternLM3ForCausalLM", keys)


def as_text_of(architecture: str) -> Callable[[Path], None]:
    """The part that reads text of a model that sees images too."""

    def store(folder: Path) -> None:
        rewrite_tensors(
            folder, lambda tensors: {f"language_model.{name}": t for name, t in tensors.items()}
        )
        path = folder / "config.json"
        text = json.loads(path.read_text())
        path.write_text(json.dumps({"architectures": [architecture], "text_config": text}))

    return store


def renamed(tensors: dict[str, Tensor], names: dict[str, str]) -> dict[str, Tensor]:
    def rename(name: str) -> str:
        for old, new in names.items():
            name = name.replace(old, new)
        return name

    return {rename(name): tensor for name, tensor in tensors.items()}


def rewrite_tensors(folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path)


def rewrite_config(folder: Path, architecture: str, keys: dict[str, str]) -> None:
    path = folder / "config.json"
    config: dict[str, Any] = json.loads(path.read_text())
    changed = {keys.get(key, key): value for key, value in config.items()}
    path.write_text(json.dumps(changed | {"architectures": [architecture]}))
