"""What families with mixtures of experts share: which layers have them, and their tensors' names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from inarch.models.config_json import Config
from inarch.models.description import Description, MixtureOfExperts
from inarch.models.sources import FirstOf, Names, Sources


@dataclass(frozen=True)
class ExpertNames:
    """How a checkpoint with one tensor for each matrix of each expert calls them, within a layer.

    stacked: where transformers keeps all experts as one, if it was told to save them so.
    """

    router: str = "mlp.gate"
    correction: str = "mlp.gate.e_score_correction_bias"
    experts: str = "mlp.experts"
    stacked: str = "mlp.experts"
    gate: str = "gate_proj"
    up: str = "up_proj"
    down: str = "down_proj"
    shared: str = "mlp.shared_experts"
    shared_gate: str = "mlp.shared_expert_gate"


PLAIN = ExpertNames()


def with_experts(
    description: Description, experts: MixtureOfExperts, chosen: Callable[[int], bool]
) -> Description:
    """The same, with a mixture of experts in place of the feed-forwards of the chosen layers."""
    layers = (
        replace(layer, feed_forward=experts) if chosen(index) else layer
        for index, layer in enumerate(description.layers)
    )
    return replace(description, layers=tuple(layers))


def with_expert_names(
    others: Callable[[Description], Names], called: ExpertNames = PLAIN
) -> Callable[[Description], Names]:
    """The same, and the tensors of every mixture of experts where `others` name none."""

    def names(description: Description) -> Names:
        found = dict(others(description))
        for parameter, sources in _expert_names(description, called).items():
            found[parameter] = found.get(parameter) or sources
        return found

    return names


def _expert_names(description: Description, called: ExpertNames) -> dict[str, Sources | FirstOf]:
    found: dict[str, Sources | FirstOf] = {}
    for index, layer in enumerate(description.layers):
        if isinstance(layer.feed_forward, MixtureOfExperts):
            own = _of_layer(layer.feed_forward.experts, f"model.layers.{index}.", called)
            found |= {f"layers.{index}.feed_forward.{name}": own[name] for name in own}
    return found


def _of_layer(experts: int, layer: str, called: ExpertNames) -> dict[str, Sources | FirstOf]:
    each = [f"{layer}{called.experts}.{expert}" for expert in range(experts)]
    both = (called.gate, called.up)
    stacked = layer + called.stacked
    return {
        "router.weight": (f"{layer}{called.router}.weight",),
        "router.correction": (f"{layer}{called.correction}",),
        "experts.gate_up.weight": FirstOf(
            tuple(f"{one}.{part}.weight" for one in each for part in both),
            (f"{stacked}.gate_up_proj",),
        ),
        "experts.down.weight": FirstOf(
            tuple(f"{one}.{called.down}.weight" for one in each), (f"{stacked}.down_proj",)
        ),
        "shared.gate_up.weight": tuple(f"{layer}{called.shared}.{part}.weight" for part in both),
        "shared.down.weight": (f"{layer}{called.shared}.{called.down}.weight",),
        "shared_gate.weight": (f"{layer}{called.shared_gate}.weight",),
    }


def sparse_layers(config: Config) -> Callable[[int], bool]:
    """Qwen's way to say which layers have experts: every n-th, without those of a list."""
    step = config.integer("decoder_sparse_step", 1)
    dense = config.get("mlp_only_layers") or []
    if not isinstance(dense, list) or not all(isinstance(index, int) for index in dense):
        raise config.error("mlp_only_layers", "a list of layer numbers")
    return lambda index: index not in dense and (index + 1) % step == 0


def expert_count(config: Config, default: int) -> int:
    """Experts of a layer, under any of the names that configs have for it."""
    keys = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
    return config.integer(_given(config, keys), default)


def chosen_experts(config: Config, count: int, default: int) -> int:
    """How many experts of `count` a token has."""
    key = _given(config, ("num_experts_per_tok", "moe_k"))
    top_k = config.optional_integer(key, default) or default
    if top_k > count:
        raise config.error(key, f"at most the number of experts, {count}")
    return top_k


def _given(config: Config, keys: Sequence[str]) -> str:
    return next((key for key in keys if config.get(key) is not None), keys[0])
