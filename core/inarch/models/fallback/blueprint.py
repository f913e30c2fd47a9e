"""The blueprint of a model that transformers' own code runs."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from inarch.errors import ModelError
from inarch.hal.attention import Attention, AttentionSpec
from inarch.hal.device import Device
from inarch.hal.dispatch import Dispatcher
from inarch.hal.kv import KVHeads, KVSpec, KVStore
from inarch.hal.state import StateSpec
from inarch.models.attentions import Attentions
from inarch.models.checkpoint import Checkpoint
from inarch.models.description.pooling import PooledHead
from inarch.models.fallback.check import check_against_transformers
from inarch.models.fallback.interface import TRACING, register
from inarch.models.fallback.loading import load_module
from inarch.models.fallback.model import LayerAttention, TransformersModel
from inarch.models.fallback.refusing import described, refusal
from inarch.models.fallback.trace import TRACED_DTYPE, Trace, trace
from inarch.models.survey import Survey, part_in_words

log = logging.getLogger(__name__)

ATTENDING = {"full_attention", "sliding_attention", "attention", "global", "local"}
# Rotations that transformers changes for a whole batch once one position in it is this far out.
BATCH_DEPENDENT = {
    "dynamic": "max_position_embeddings",
    "longrope": "original_max_position_embeddings",
}


@dataclass(frozen=True)
class TransformersBlueprint:
    """See Blueprint. dummy: with random weights. trust_code: of the checkpoint, which its model is."""

    config: Any  # transformers' PreTrainedConfig
    checkpoint: Checkpoint
    trace: Trace
    context_length: int
    dummy: bool
    trust_code: bool

    on_kernels = False
    long_from = None  # positions are rotated by transformers, alike in every sequence
    causal = True
    token_types = 0
    pooled: PooledHead | None = None

    @property
    def vocab_size(self) -> int:
        return self.trace.vocab_size

    @property
    def hidden(self) -> int:
        return int(self.config.get_text_config().hidden_size)

    def kv_spec(self, dtype: torch.dtype) -> KVSpec:
        heads = (KVHeads(s.kv_heads, s.key_dim, s.value_dim) for s in self.trace.specs)
        return KVSpec(tuple(heads), dtype)

    def state_spec(self, dtype: torch.dtype) -> StateSpec:
        return StateSpec()  # a model with recurrent states is refused

    def survey(self, dtype: torch.dtype) -> Survey:
        import transformers

        version, name = transformers.__version__, str(self.config.architectures[0])
        return Survey(
            implementation=f"{name} of transformers {version}, with paged attention",
            parameters=self.trace.parameters,
            weight_bytes=self.trace.parameters * dtype.itemsize,
            stored="compared with the model when it is loaded",
            layers=tuple(_in_words(spec) for spec in self.trace.specs),
            positions=(_rotation_in_words(self.config.get_text_config()),),
        )

    def bind(
        self, dispatcher: Dispatcher, store: KVStore, device: Device, dtype: torch.dtype
    ) -> None:
        self._bind(Attentions(dispatcher, store, device), dtype)

    def load(
        self, dispatcher: Dispatcher, store: KVStore, device: Device, dtype: torch.dtype
    ) -> TransformersModel:
        attentions = Attentions(dispatcher, store, device)
        bound = self._bind(attentions, dtype)
        module = load_module(
            self.checkpoint.folder,
            self.config,
            dtype,
            device.torch_device,
            dummy=self.dummy,
            trust_code=self.trust_code,
        )
        layers = [
            LayerAttention(module.get_submodule(name), *served, spec.sinks)
            for name, served, spec in zip(self.trace.modules, bound, self.trace.specs, strict=True)
        ]
        model = TransformersModel(module, layers, attentions)
        check_against_transformers(model, store, device, self.vocab_size)
        return model

    def _bind(self, attentions: Attentions, dtype: torch.dtype) -> list[tuple[Attention, int]]:
        return [attentions.bind(replace(spec, dtype=dtype)) for spec in self.trace.specs]


def transformers_blueprint(
    checkpoint: Checkpoint, *, dummy: bool, trust_code: bool
) -> TransformersBlueprint:
    """Follow the model's code without weights. Raises ModelError where it cannot run over pages."""
    register()
    config, trusted = _read_config(checkpoint, trust_code)
    name = str((config.architectures or ["the model"])[0])
    _refuse_by_config(name, config)
    model = _without_weights(name, config, trusted)
    if type(model).__name__ != name:
        raise ModelError(
            f"config.json names the architecture {name}, but transformers runs a model_type "
            f"{config.model_type!r} that generates text as {type(model).__name__}"
        )
    return TransformersBlueprint(
        config, checkpoint, trace(model), _context(name, config), dummy, trusted
    )


def _without_weights(name: str, config: Any, trusted: bool) -> Any:
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoModelForCausalLM

    if not trusted and type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise refusal(name, "transformers has no AutoModelForCausalLM of its kind")
    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(
                _traceable(config),
                attn_implementation=TRACING,
                dtype=TRACED_DTYPE,
                trust_remote_code=trusted,
            ).eval()
    except KeyError as error:  # a model with a table of attentions of its own
        if error.args != (TRACING,):
            raise ModelError(f"transformers cannot make {name}: {described(error)}") from error
        raise refusal(name, "its attention is not chosen by transformers' interface") from error
    except Exception as error:
        raise ModelError(f"transformers cannot make {name}: {described(error)}") from error


def _traceable(config: Any) -> Any:
    """A copy whose rotations look at no position, of which there are none: attention asks the same."""
    config = copy.deepcopy(config)
    for section in _rope_sections(config.get_text_config()):
        if section.get("rope_type") == "dynamic":
            section["rope_type"] = "default"
    return config


def _read_config(checkpoint: Checkpoint, trust_code: bool) -> tuple[Any, bool]:
    """transformers' config, and whether it takes code out of the checkpoint's folder."""
    from transformers import AutoConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    model_type = checkpoint.config.get("model_type")
    own_code = model_type not in CONFIG_MAPPING
    code = checkpoint.config.get("auto_map")
    if own_code and not isinstance(code, Mapping):
        raise ModelError(f"transformers knows no model_type {model_type!r}")
    if own_code and not trust_code:
        raise ModelError(
            f"it comes with code of its own ({checkpoint.folder}/*.py), which would run with all your "
            "rights: read it, and if you trust it, add --trust-remote-code"
        )
    try:
        config = AutoConfig.from_pretrained(checkpoint.folder, trust_remote_code=own_code)
    except Exception as error:
        raise ModelError(
            f"transformers cannot read {checkpoint.folder}: {described(error)}"
        ) from error
    return config, own_code


def _refuse_by_config(name: str, config: Any) -> None:
    if config.is_encoder_decoder:
        raise refusal(name, "it is an encoder with a decoder")
    text = config.get_text_config()
    kinds = getattr(text, "layer_types", None) or getattr(text, "layers_block_type", None) or ()
    if strange := sorted(set(kinds) - ATTENDING):
        raise refusal(name, f"it has layers of the kind {', '.join(strange)}")


def _context(name: str, config: Any) -> int:
    """Tokens: as many as the config states, and none whose rotation depends on the batch."""
    text = config.get_text_config()
    stated = getattr(text, "max_position_embeddings", None)
    if not isinstance(stated, int):
        raise refusal(name, "its config states no max_position_embeddings")
    for section in _rope_sections(text):
        key = BATCH_DEPENDENT.get(str(section.get("rope_type")))
        if key is None:
            continue
        limit = int(section.get(key) or getattr(text, key, None) or stated)
        if limit < stated:
            log.warning(
                "beyond %d positions transformers rotates by the longest sequence of a batch: "
                "contexts end there, not at %d",
                limit,
                stated,
            )
            stated = limit
    return stated


def _rope_sections(config: Any) -> list[dict[str, Any]]:
    """rope_parameters itself, and what it holds for each kind of layer."""
    rope = getattr(config, "rope_parameters", None) or {}
    return [rope, *(part for part in rope.values() if isinstance(part, dict))]


def _in_words(spec: AttentionSpec) -> str:
    sizes = part_in_words(spec).partition(", ")[2]
    return f"attention, {sizes}{', sinks' if spec.sinks else ''}"


def _rotation_in_words(config: Any) -> str:
    rope = getattr(config, "rope_parameters", None)
    if not rope:
        return "as transformers' code knows them"
    return ", ".join(f"{key} {value}" for key, value in rope.items())
