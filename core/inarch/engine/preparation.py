"""What is settled before a weight is read: the blueprint, the device, the choices, the page store."""

from __future__ import annotations

from dataclasses import dataclass

from inarch.config import EngineConfig
from inarch.engine.choices import Choices, choose
from inarch.engine.opening import kernels_for, open_device
from inarch.errors import UnsupportedError
from inarch.hal.backend import Backend
from inarch.hal.device import Device
from inarch.hal.dispatch import Dispatcher
from inarch.hal.kv import KVStore
from inarch.hal.quantized_linear import QuantizationScheme
from inarch.hal.reference.kv import ReferenceKVStore
from inarch.models.checkpoint import Checkpoint
from inarch.models.family import Family
from inarch.models.implementation import find_blueprint
from inarch.models.model import Blueprint
from inarch.plugins import Plugins


@dataclass(frozen=True)
class Prepared:
    checkpoint: Checkpoint
    blueprint: Blueprint
    device: Device
    chosen: Choices
    dispatcher: Dispatcher
    store: KVStore


def quantization_scheme(config: EngineConfig) -> QuantizationScheme | None:
    """What the user asks to store the weights of linear layers as; None: as they come."""
    if config.quantization == "none":
        return None
    bits = {"int8": 8, "int4": 4}[config.quantization]
    return QuantizationScheme(bits, config.quantization_group)


def prepare(config: EngineConfig, backend: Backend, plugins: Plugins) -> Prepared:
    """config: resolved, so that it names a folder. Raises InarchError."""
    assert config.model is not None
    checkpoint = Checkpoint(config.model)
    blueprint = find_blueprint(
        checkpoint,
        plugins.families(Family),
        model_impl=config.model_impl,
        dummy=config.load_format == "dummy",
        trust_code=config.trust_remote_code,
        quantization=quantization_scheme(config),
    )
    if config.strict and not blueprint.on_kernels:
        raise UnsupportedError(
            "--strict: the model would run by transformers' plain code, which no kernel serves; it "
            "needs a model family (see docs/models.md)"
        )
    device = open_device(backend, config.device)
    chosen = choose(config, checkpoint, blueprint, device)
    kernels = kernels_for(backend, device, plugins)
    dispatcher = Dispatcher(kernels, overrides=config.kernels, strict=config.strict)
    spec = blueprint.kv_spec(chosen.kv_dtype)
    # A model that keeps nothing of a token has pages all the same, of no bytes: its tokens are counted
    # and its prefixes shared in them.
    store = device.kv_store(spec, chosen.page_tokens) if spec.layers else None
    if store is None:
        store = ReferenceKVStore(spec, chosen.page_tokens, device.torch_device)
    return Prepared(checkpoint, blueprint, device, chosen, dispatcher, store)
