"""Small random models of every family, made and saved by transformers, which is the oracle."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from inarch.hal.dispatch import Dispatcher
from inarch.hal.op import Kernel
from inarch.hal.quantized_linear import QuantizationScheme
from inarch.hal.reference.device import ReferenceDevice
from inarch.hal.reference.kv import ReferenceKVStore
from inarch.models.checkpoint import Checkpoint
from inarch.models.decoder import kv_spec
from inarch.models.family import find_family
from inarch.models.loading import load_decoder

from ...support.paged import Paged
from .zoo import MODELS


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
    torch.manual_seed(sum(name.encode()))
    model = MODELS[name].model()
    randomize(model)
    model.save_pretrained(folder, **changes)
    if (stored := MODELS[name].stored) is not None:
        stored(folder)
    return Saved(model, folder)


@torch.no_grad()
def randomize(model: PreTrainedModel) -> None:
    """Every weight, norms and biases included."""
    corrections = ((k, b) for k, b in model.named_buffers() if "correction" in k)
    for key, parameter in itertools.chain(model.named_parameters(), corrections):
        parameter.normal_(mean=float("norm" in key.lower()), std=0.15)


def load(
    folder: Path,
    page_tokens: int = 16,
    dtype: torch.dtype = torch.float32,
    kernels: Sequence[Kernel] = (),
    quantization: QuantizationScheme | None = None,
) -> Paged:
    """The folder's model in our decoder on the reference device, ready to be stepped."""
    device, checkpoint = ReferenceDevice(), Checkpoint(folder)
    family = find_family(checkpoint.config)
    description = family.describe(checkpoint.config)
    store = ReferenceKVStore(kv_spec(description, dtype), page_tokens, device.torch_device)
    names, dispatcher = family.names(description), Dispatcher(kernels)
    decoder = load_decoder(
        description, names, checkpoint, dispatcher, store, device, dtype, quantization
    )
    return Paged(decoder, store, device)
