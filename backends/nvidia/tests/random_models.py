"""Small random models, made by transformers, which is the oracle; and our decoder of the same weights."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
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

from inarch.engine.batch import build_batch, step_shape
from inarch.engine.plan import StepPlan
from inarch.engine.table import RequestTable
from inarch.hal.device import Device
from inarch.hal.dispatch import Dispatcher
from inarch.hal.executor import Executor, StepInputs
from inarch.hal.kv import KVStore
from inarch.models.checkpoint import Checkpoint
from inarch.models.decoder import Decoder, kv_spec
from inarch.models.family import find_family
from inarch.models.loading import load_decoder

REPOSITORY = Path(__file__).parents[3]
VOCABULARY = 1000
ROWS = 32  # sequences at once
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
    save_tokenizer(folder)
    return Saved(model.float(), folder)


def save_tokenizer(folder: Path) -> None:
    tokenizer = Tokenizer(models.WordLevel({f"w{i}": i for i in range(VOCABULARY)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text("{}")


class Sequence(list[int]):
    """The tokens so far of one row, as a step plan asks for them."""

    def tokens(self, start: int, end: int) -> np.ndarray:
        return np.array(self[start:end], np.int32)


class Stepped:
    """A decoder whose steps are padded, uploaded and run by an executor, as the core has them."""

    def __init__(self, decoder: Decoder, executor: Executor, store: KVStore) -> None:
        self._decoder, self._executor = decoder, executor
        columns = 2048 // store.layout.page_tokens
        self._table = RequestTable(ROWS, columns)
        self._table.pages[:ROWS] = 1 + np.arange(ROWS * columns).reshape(ROWS, columns)
        self._kv = store.allocate(1 + ROWS * columns)
        self._sequences = [Sequence() for _ in range(ROWS)]

    @torch.inference_mode()
    def step(self, chunks: Mapping[int, list[int]]) -> dict[int, Tensor]:
        """One forward pass that appends tokens to rows: logits [V] after each row's last token."""
        rows = np.array(list(chunks), np.int32)
        starts = np.array([len(self._sequences[row]) for row in chunks], np.int32)
        for row, tokens in chunks.items():
            self._sequences[row] += tokens
        plan = StepPlan(
            [self._sequences[row] for row in chunks],  # type: ignore[misc]
            rows, starts, np.array([len(tokens) for tokens in chunks.values()], np.int32),
            np.ones(len(rows), bool), decodes=0,
        )  # fmt: skip
        batch = build_batch(plan, self._table, self._executor.bucket(step_shape(plan)))
        host = self._decoder.plan(batch.attention)
        arrays = {**batch.inputs, **host.arrays}
        there = self._executor.upload(batch.shape, arrays, host.passing)
        inputs = StepInputs(*(there[name] for name in batch.inputs), plans=host.bind(there))
        logits, self._kv = self._executor.run(self._decoder.forward, batch.shape, inputs, self._kv)
        return {row: logits[i].clone() for i, row in enumerate(chunks)}


def load(
    folder: Path, device: Device, dtype: torch.dtype, *, stored: torch.dtype | None = None
) -> Any:
    """The folder's model on the device with all its kernels: a `Paged`, ready to be stepped.

    stored: dtype of the pages; None: the one that is computed in.
    """
    decoder, store = _load(folder, device, dtype, stored or dtype)
    return paged(decoder, store, device)


def load_stepped(folder: Path, device: Device, dtype: torch.dtype, executor: Executor) -> Stepped:
    decoder, store = _load(folder, device, dtype, dtype)
    return Stepped(decoder, executor, store)


def _load(
    folder: Path, device: Device, dtype: torch.dtype, stored: torch.dtype
) -> tuple[Decoder, KVStore]:
    checkpoint = Checkpoint(folder)
    family = find_family(checkpoint.config)
    description = family.describe(checkpoint.config)
    store = device.kv_store(kv_spec(description, stored), 64)
    assert store is not None
    names, dispatcher = family.names(description), Dispatcher(device.kernels(), strict=True)
    decoder = load_decoder(description, names, checkpoint, dispatcher, store, device, dtype)
    return decoder, store


def paged(*arguments: Any) -> Any:
    """tests/support/paged.py, which is in no package."""
    place = REPOSITORY / "tests" / "support" / "paged.py"
    spec = importlib.util.spec_from_file_location("inarch_tests_paged", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Paged(*arguments)
