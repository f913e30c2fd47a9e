"""DeepSeek's mixtures of experts: groups of many small ones, shared ones, and dense first layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from inarch.models.config_json import Config
from inarch.models.description import Description, GatedMLP, MixtureOfExperts, Router
from inarch.models.families.parts import latent_like
from inarch.models.families.parts.activations import gate
from inarch.models.families.parts.experts import (
    chosen_experts,
    expert_count,
    with_expert_names,
    with_experts,
)


@dataclass(frozen=True)
class Defaults:
    """What transformers' config class of the family assumes for keys that are missing."""

    experts: int
    top_k: int
    intermediate: int
    shared: int
    scale: float
    groups: int = 1
    top_groups: int = 1


def describe(
    dense: Description,
    config: Config,
    defaults: Defaults,
    router: Router,
    sparse: Callable[[int], bool],
) -> Description:
    """`dense` with experts in the layers that are sparse."""
    size = config.integer("moe_intermediate_size", defaults.intermediate)
    act = gate(config)
    experts = MixtureOfExperts(
        experts=expert_count(config, defaults.experts),
        intermediate=size,
        router=router,
        activation=act,
        shared=GatedMLP(size * config.integer("n_shared_experts", defaults.shared), act),
    )
    return with_experts(dense, experts, sparse)


def softmax_router(config: Config, defaults: Defaults) -> Router:
    """The router of V2, whose experts come from any group."""
    top_k = chosen_experts(config, expert_count(config, defaults.experts), defaults.top_k)
    scale = config.number("routed_scaling_factor", defaults.scale)
    return Router(top_k, scale=scale, float32=True)


def sigmoid_router(config: Config, defaults: Defaults) -> Router:
    """The router of V3: a correction for the choice alone, and groups that count as two experts."""
    return replace(
        grouped(softmax_router(config, defaults), config, defaults),
        scores="sigmoid",
        renormalise=config.flag("norm_topk_prob", True),
        group_experts=2,
        correction=True,
    )


def grouped(router: Router, config: Config, defaults: Defaults) -> Router:
    """The same, of which a token's experts come from its best groups."""
    count = expert_count(config, defaults.experts)
    groups = config.integer("n_group", defaults.groups)
    best = config.integer("topk_group", defaults.top_groups)
    if count % groups:
        raise config.error("n_group", f"a divisor of the number of experts, {count}")
    if best > groups or count // groups * best < router.top_k:
        raise config.error(
            "topk_group",
            f"at most the {groups} groups, and enough for the {router.top_k} experts of a token",
        )
    return replace(router, groups=groups, top_groups=best)


def after_first(config: Config, default: int) -> Callable[[int], bool]:
    """The layers behind the first `first_k_dense_replace`."""
    first = config.integer("first_k_dense_replace", default, least=0)
    config.only("moe_layer_freq", 1)
    return lambda index: index >= first


NAMES = with_expert_names(latent_like.names)
