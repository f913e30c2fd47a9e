"""Small random models of every family, made and saved by transformers, which is the oracle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from inarch.hal.dispatch import Dispatcher
from inarch.hal.op import Kernel
from inarch.hal.reference.device import ReferenceDevice
from inarch.hal.reference.kv import ReferenceKVStore
from inarch.models.checkpoint import Checkpoint
from inarch.models.decoder import kv_spec
from inarch.models.family import find_family
from inarch.models.loading import load_decoder

from ...support.paged import Paged

SMALL = {
    "vocab_size": 101,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": None,
    "eos_token_id": None,
}
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

# name -> (config class, model class, what differs from SMALL)
MODELS: dict[str, tuple[type, type, dict[str, Any]]] = {
    "llama": (LlamaConfig, LlamaForCausalLM, {}),
    "llama-multi-head": (LlamaConfig, LlamaForCausalLM, {"num_key_value_heads": None}),
    "llama-biases": (LlamaConfig, LlamaForCausalLM, {"attention_bias": True, "mlp_bias": True}),
    "llama-tied": (LlamaConfig, LlamaForCausalLM, {"tie_word_embeddings": True}),
    "llama-rope-llama3": (LlamaConfig, LlamaForCausalLM, {"rope_parameters": LLAMA3}),
    "llama-rope-linear": (LlamaConfig, LlamaForCausalLM, {"rope_parameters": LINEAR}),
    "llama-gelu": (
        LlamaConfig,
        LlamaForCausalLM,
        {"hidden_act": "gelu_pytorch_tanh", "head_dim": 24, "rms_norm_eps": 1e-3},
    ),
    "mistral": (MistralConfig, MistralForCausalLM, {"sliding_window": None}),
    "mistral-window": (MistralConfig, MistralForCausalLM, {"sliding_window": 9, "head_dim": 32}),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, {"tie_word_embeddings": True}),
    "qwen2-windows": (Qwen2Config, Qwen2ForCausalLM, {**WINDOWS, "max_window_layers": 1}),
    "qwen2-rope-yarn": (Qwen2Config, Qwen2ForCausalLM, {"rope_parameters": YARN}),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, {"head_dim": 32}),
    "qwen3-windows": (
        Qwen3Config,
        Qwen3ForCausalLM,
        {
            **WINDOWS,
            "head_dim": 16,
            "attention_bias": True,
            "layer_types": ["full_attention", "sliding_attention", "full_attention"],
        },
    ),
}


@dataclass(frozen=True)
class Saved:
    """transformers' model and the folder it was saved to."""

    model: PreTrainedModel
    folder: Path

    @torch.inference_mode()
    def logits(self, tokens: list[int]) -> torch.Tensor:
        """[len(tokens), V] float32 of one whole forward pass."""
        return self.model(torch.tensor([tokens])).logits[0].float()

    def greedy(self, prompt: list[int], new_tokens: int) -> list[int]:
        out = self.model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=new_tokens,
            do_sample=False,
        )
        return out[0, len(prompt) :].tolist()


def make(name: str, folder: Path, **changes: Any) -> Saved:
    """A model of random weights, all of them, norms and biases included, saved to the folder."""
    config_class, model_class, own = MODELS[name]
    torch.manual_seed(sum(name.encode()))
    model = model_class(config_class(**(SMALL | own))).eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            parameter.normal_(mean=float("norm" in key), std=0.15)
    model.save_pretrained(folder, **changes)
    return Saved(model, folder)


def load(
    folder: Path,
    page_tokens: int = 16,
    dtype: torch.dtype = torch.float32,
    kernels: Sequence[Kernel] = (),
) -> Paged:
    """The folder's model in our decoder on the reference device, ready to be stepped."""
    device, checkpoint = ReferenceDevice(), Checkpoint(folder)
    family = find_family(checkpoint.config)
    description = family.describe(checkpoint.config)
    store = ReferenceKVStore(kv_spec(description, dtype), page_tokens, device.torch_device)
    names, dispatcher = family.names(description), Dispatcher(kernels)
    decoder = load_decoder(description, names, checkpoint, dispatcher, store, device, dtype)
    return Paged(decoder, store, device)
