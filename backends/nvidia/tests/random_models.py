"""Small random models, made by transformers, which is the oracle; and our decoder of the same weights."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from inarch.hal.device import Device
from inarch.hal.dispatch import Dispatcher
from inarch.hal.executor import Executor, StepInputs, StepShape
from inarch.models.checkpoint import Checkpoint
from inarch.models.decoder import Decoder, kv_spec
from inarch.models.family import find_family
from inarch.models.loading import load_decoder

REPOSITORY = Path(__file__).parents[3]
VOCABULARY = 1000
COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": False,
    "bos_token_id": None,
    "eos_token_id": None,
}
MODELS: dict[str, tuple[type, type, dict[str, Any]]] = {
    "llama": (LlamaConfig, LlamaForCausalLM, {}),
    "llama-128": (LlamaConfig, LlamaForCausalLM, {"head_dim": 128, "num_attention_heads": 4}),
    "mistral-window": (MistralConfig, MistralForCausalLM, {"sliding_window": 50}),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, {"head_dim": 128, "num_attention_heads": 4}),
}


@dataclass(frozen=True)
class Saved:
    """transformers' model, of weights that bfloat16 can hold, in float32; and its folder."""

    model: PreTrainedModel
    folder: Path

    @torch.inference_mode()
    def logits(self, tokens: list[int]) -> Tensor:
        """[len(tokens), V] float32 on the CPU, of one whole forward pass."""
        ids = torch.tensor([tokens], device=self.model.device)
        return self.model(ids).logits[0].float().cpu()


def make(name: str, folder: Path) -> Saved:
    """Random weights of a size that gives logits of less than one, saved with a tokenizer."""
    config_class, model_class, own = MODELS[name]
    torch.manual_seed(sum(name.encode()))
    model = model_class(config_class(**(COMMON | own))).eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            norm = "norm" in key
            parameter.normal_(mean=float(norm), std=0.1 if norm else 0.04)
            parameter.copy_(parameter.bfloat16())
    model.bfloat16().save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({f"w{i}": i for i in range(VOCABULARY)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text("{}")
    return Saved(model.float(), folder)


@dataclass(frozen=True)
class Captured:
    """A decoder whose steps go through an executor."""

    decoder: Decoder
    executor: Executor

    @property
    def plan(self) -> Callable[..., Any]:
        return self.decoder.plan

    def forward(self, inputs: StepInputs, kv: Any) -> tuple[Tensor, Any]:
        tokens, seqs = len(inputs.token_ids), len(inputs.last_token)
        shape = StepShape(tokens, seqs, 1 if tokens == seqs else tokens)
        return self.executor.run(self.decoder.forward, shape, inputs, kv)


def load(
    folder: Path,
    device: Device,
    dtype: torch.dtype,
    executor: Executor | None = None,
    *,
    stored: torch.dtype | None = None,
) -> Any:
    """The folder's model on the device with all its kernels: a `Paged`, ready to be stepped.

    stored: dtype of the pages; None: the one that is computed in.
    """
    checkpoint = Checkpoint(folder)
    family = find_family(checkpoint.config)
    description = family.describe(checkpoint.config)
    store = device.kv_store(kv_spec(description, stored or dtype), 64)
    names, dispatcher = family.names(description), Dispatcher(device.kernels(), strict=True)
    decoder = load_decoder(description, names, checkpoint, dispatcher, store, device, dtype)
    return paged(decoder if executor is None else Captured(decoder, executor), store, device)


def paged(*arguments: Any) -> Any:
    """tests/support/paged.py, which is in no package."""
    place = REPOSITORY / "tests" / "support" / "paged.py"
    spec = importlib.util.spec_from_file_location("inarch_tests_paged", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Paged(*arguments)
