"""Every op, by family. A kernel registered for a name that is not here is an error."""

from __future__ import annotations

from typing import Any

from inarch.hal.op import Op
from inarch.hal.ops import (
    activation,
    convolution,
    delta_rule,
    gated_norm,
    norm,
    rotary,
    routing,
    sampling,
    state_space,
)

OPS: dict[str, Op[..., Any]] = {
    value.name: value
    for module in (
        activation,
        convolution,
        delta_rule,
        gated_norm,
        norm,
        rotary,
        routing,
        sampling,
        state_space,
    )
    for value in vars(module).values()
    if isinstance(value, Op)
}

# Facets that are chosen like ops but are classes: see the modules of hal/ that are called so.
FACETS = (
    "attention",
    "experts",
    "grouped_linear",
    "latent_attention",
    "linear",
    "quantized_experts",
    "quantized_grouped_linear",
    "quantized_linear",
)
