"""The blueprint of a model that one of our families describes, and our decoder runs."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace

import torch

from inarch.hal.device import Device
from inarch.hal.dispatch import Dispatcher
from inarch.hal.kv import KVSpec, KVStore
from inarch.hal.quantized_linear import QuantizationScheme
from inarch.hal.state import StateSpec
from inarch.models.builder import Builder
from inarch.models.checkpoint import Checkpoint
from inarch.models.decoder import Decoder, build_decoder, kv_spec, state_spec
from inarch.models.description import Description
from inarch.models.description.pooling import PooledHead
from inarch.models.endings import both_sides, with_head
from inarch.models.family import Family
from inarch.models.loading import load_decoder
from inarch.models.parameters import Parameter
from inarch.models.sentence_modules import dense_tensors, read_limit, read_modules
from inarch.models.sources import Names, choose_sources
from inarch.models.survey import Survey, layer_in_words, positions_in_words
from inarch.models.weights import Weights, check_tensors


@dataclass(frozen=True)
class DecoderBlueprint:
    """See Blueprint. names: of the description's tensors; weights: None for random ones.

    quantization: how the weights of linear layers are stored; None: as they come.
    """

    family: str
    description: Description
    names: Names
    weights: Checkpoint | None
    quantization: QuantizationScheme | None = None

    on_kernels = True

    @property
    def vocab_size(self) -> int:
        return self.description.vocab_size

    @property
    def context_length(self) -> int:
        return self.description.context_length

    @property
    def hidden(self) -> int:
        return self.description.hidden

    @property
    def causal(self) -> bool:
        return self.description.causal

    @property
    def token_types(self) -> int:
        return self.description.token_types

    @property
    def pooled(self) -> PooledHead | None:
        return self.description.pooled

    @property
    def long_from(self) -> int | None:
        return self.description.long_from

    def kv_spec(self, dtype: torch.dtype) -> KVSpec:
        return kv_spec(self.description, dtype)

    def state_spec(self, dtype: torch.dtype) -> StateSpec:
        return state_spec(self.description, dtype)

    def survey(self, dtype: torch.dtype) -> Survey:
        parameters = self.description.parameters()
        if self.weights is not None:
            chosen = choose_sources(self.names, self.weights.names())
            check_tensors(self.weights, chosen, parameters)
        return Survey(
            implementation=f"our decoder, by the family {self.family}",
            parameters=sum(parameter.elements for parameter in parameters.values()),
            weight_bytes=self._weight_bytes(dtype),
            stored="none is missing, all shapes fit",
            layers=tuple(layer_in_words(layer) for layer in self.description.layers),
            positions=positions_in_words(self.description),
        )

    def bind(
        self, dispatcher: Dispatcher, store: KVStore, device: Device, dtype: torch.dtype
    ) -> None:
        parameters = self.description.parameters()
        nowhere = torch.device("meta")
        weights = Weights(parameters, lambda *_: None, nowhere, dtype, lambda _: None)
        builder = Builder(self.description, weights, dispatcher, store, device, self.quantization)
        build_decoder(self.description, builder)

    def load(
        self, dispatcher: Dispatcher, store: KVStore, device: Device, dtype: torch.dtype
    ) -> Decoder:
        return load_decoder(
            self.description,
            self.names,
            self.weights,
            dispatcher,
            store,
            device,
            dtype,
            self.quantization,
        )

    def _weight_bytes(self, dtype: torch.dtype) -> int:
        parameters, scheme = self.description.parameters(), self.quantization
        total = sum(_bytes(parameter, dtype, scheme) for parameter in parameters.values())
        if scheme is not None and self.description.tie_embeddings and self.pooled is None:
            # The embedding is read as it is; the head multiplies by a quantized copy.
            total += scheme.weight_bytes(self.vocab_size, self.hidden)
        return total


def decoder_blueprint(
    checkpoint: Checkpoint,
    family: Family,
    *,
    dummy: bool = False,
    quantization: QuantizationScheme | None = None,
) -> DecoderBlueprint:
    """Of what config.json says, and the modules of sentence-transformers beside it. Raises ModelError."""
    description, names = _described(checkpoint, family)
    weights = None if dummy else checkpoint
    return DecoderBlueprint(family.name, description, names, weights, quantization)


def _described(checkpoint: Checkpoint, family: Family) -> tuple[Description, Names]:
    config = {k: v for k, v in checkpoint.config.items() if k != "use_bidirectional_attention"}
    description = both_sides(checkpoint.config, family.describe(config))
    names = family.names(description)
    modules = read_modules(checkpoint.folder)
    if modules is None or (description.pooled and description.pooled.labels):
        return description, names
    description = with_head(description, modules.head)
    longest = min(description.context_length, read_limit(checkpoint.folder) or sys.maxsize)
    return replace(description, context_length=longest), {**names, **dense_tensors(modules)}


def _bytes(
    parameter: Parameter, dtype: torch.dtype, scheme: QuantizationScheme | None = None
) -> int:
    if scheme is not None and parameter.quantizable:
        inputs = parameter.shape[-1]
        return scheme.weight_bytes(parameter.elements // inputs, inputs)
    kept = getattr(torch, parameter.dtype) if parameter.dtype else dtype
    return parameter.elements * int(kept.itemsize)
