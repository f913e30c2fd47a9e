"""The blueprint of a model that one of our families describes, and our decoder runs."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from inarch.hal.device import Device
from inarch.hal.dispatch import Dispatcher
from inarch.hal.kv import KVSpec, KVStore
from inarch.models.checkpoint import Checkpoint
from inarch.models.decoder import Decoder, kv_spec
from inarch.models.description import Description
from inarch.models.family import Family
from inarch.models.loading import load_decoder


@dataclass(frozen=True)
class DescribedModel:
    """weights: None for random ones. See Blueprint."""

    family: Family
    description: Description
    weights: Checkpoint | None

    @property
    def vocab_size(self) -> int:
        return self.description.vocab_size

    @property
    def context_length(self) -> int:
        return self.description.context_length

    def kv_spec(self, dtype: torch.dtype) -> KVSpec:
        return kv_spec(self.description, dtype)

    def load(
        self, dispatcher: Dispatcher, store: KVStore, device: Device, dtype: torch.dtype
    ) -> Decoder:
        names = self.family.names(self.description)
        return load_decoder(self.description, names, self.weights, dispatcher, store, device, dtype)
