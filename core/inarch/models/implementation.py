"""Which code runs a model: our decoder, if a family describes it, or transformers' own."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Literal

from inarch.errors import ModelError, UnsupportedError
from inarch.hal.quantized_linear import QuantizationScheme
from inarch.models.checkpoint import Checkpoint
from inarch.models.decoder_blueprint import decoder_blueprint
from inarch.models.family import Family, family_of, find_family, no_family, refuse_quantized
from inarch.models.model import Blueprint

log = logging.getLogger(__name__)


def find_blueprint(
    checkpoint: Checkpoint,
    plugin_families: Iterable[Family],
    *,
    model_impl: Literal["auto", "inarch", "transformers"] = "auto",
    dummy: bool = False,
    trust_code: bool = False,
    quantization: QuantizationScheme | None = None,
) -> Blueprint:
    """The blueprint of a checkpoint. auto: by our family where there is one.

    dummy: with random weights. trust_code: code in the checkpoint's folder may be run. quantization:
    of the weights of linear layers and experts, while they are loaded. Raises ModelError with the
    reasons of both if neither can run it, UnsupportedError if weights cannot be quantized.
    """
    families = list(plugin_families)
    family = family_of(checkpoint.config, families)
    if model_impl == "inarch" or (model_impl == "auto" and family is not None):
        family = find_family(checkpoint.config, families)
        return decoder_blueprint(checkpoint, family, dummy=dummy, quantization=quantization)
    if quantization is not None:
        raise UnsupportedError(
            "--quantization: the model would run by transformers' own code, whose weights stay as "
            "they are; leave the option out"
        )
    if model_impl == "transformers":
        return _by_transformers(checkpoint, dummy, trust_code)
    lacking = no_family(checkpoint.config)
    try:
        blueprint = _by_transformers(checkpoint, dummy, trust_code)
    except ModelError as error:
        raise ModelError(f"{lacking}, and transformers' code cannot stand in: {error}") from error
    log.warning("%s: transformers' own code runs it, with paged attention", lacking)
    return blueprint


def _by_transformers(checkpoint: Checkpoint, dummy: bool, trust_code: bool) -> Blueprint:
    from inarch.models.fallback.blueprint import transformers_blueprint  # imports take seconds

    refuse_quantized(checkpoint.config)
    return transformers_blueprint(checkpoint, dummy=dummy, trust_code=trust_code)
