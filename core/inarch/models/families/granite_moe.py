"""Granite 3 with mixtures of experts, stored as stacks; with `shared`, some that serve every token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inarch.models.config_json import Config
from inarch.models.description import Description, GatedMLP, MixtureOfExperts, Router
from inarch.models.families import granite
from inarch.models.families.parts import tensor_names
from inarch.models.families.parts.activations import gate
from inarch.models.families.parts.experts import chosen_experts, expert_count, with_experts
from inarch.models.family import Family


def describe(values: Mapping[str, Any]) -> Description:
    config = Config(values)
    count, act = expert_count(config, 8), gate(config)
    shared = config.integer("shared_intermediate_size", 0, least=0)
    experts = MixtureOfExperts(
        experts=count,
        intermediate=config.integer("intermediate_size", 11008),
        router=Router(chosen_experts(config, count, 2), over_chosen=True),
        activation=act,
        shared=GatedMLP(shared, act) if shared else None,
    )
    return with_experts(granite.describe(values), experts, lambda index: True)


NAMES = tensor_names.Naming(
    {
        **tensor_names.LAYER_NAMES,
        "feed_forward.router": ("block_sparse_moe.router.layer",),
        "feed_forward.experts.gate_up": ("block_sparse_moe.input_linear",),
        "feed_forward.experts.down": ("block_sparse_moe.output_linear",),
        "feed_forward.shared.gate_up": ("shared_mlp.input_linear",),
        "feed_forward.shared.down": ("shared_mlp.output_linear",),
    }
)
ARCHITECTURES = ("GraniteMoeForCausalLM", "GraniteMoeSharedForCausalLM")
FAMILY = Family("granitemoe", ARCHITECTURES, describe, NAMES)
