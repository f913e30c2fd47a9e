"""Mixtures of experts, as data: a router chooses a few of many small feed-forwards for each token."""

from __future__ import annotations

from dataclasses import dataclass

from inarch.models.description.feed_forward import Gate, GatedMLP
from inarch.models.parameters import Parameter, Parameters, nested, stacked_linear, table


@dataclass(frozen=True)
class Router:
    """Chooses `top_k` experts for a token, and their weights: see the op `route` for the formulas.

    float32: the logits are computed in float32, whatever the model runs in. correction: the
    checkpoint holds a bias that only the choice feels, not the weights.
    """

    top_k: int
    scores: str = "softmax"  # or "sigmoid": of the logits
    over_chosen: bool = False  # scores are of the chosen logits alone
    renormalise: bool = False  # weights sum to one (times scale)
    least_sum: float = 1e-20  # that weights are divided by
    scale: float = 1.0  # multiplies the weights
    groups: int = 1  # of neighbouring experts
    top_groups: int = 1  # of which a token's experts come
    group_experts: int = 1  # best experts of a group whose scores add up to the group's
    correction: bool = False
    bias: bool = False
    float32: bool = False

    def parameters(self, hidden: int, experts: int) -> Parameters:
        dtype = "float32" if self.float32 else None
        found = {"weight": Parameter((experts,), hidden, dtype=dtype)}
        if self.bias:
            found["bias"] = Parameter((experts,), dtype=dtype)
        if self.correction:
            found["correction"] = Parameter((experts,), dtype="float32")
        return found


@dataclass(frozen=True)
class SparseMixer:
    """Chooses two experts, one after the other: see the op `sparse_mixer`."""

    jitter: float  # half the distance, as a share of the best logit, within which others count
    top_k: int = 2

    def parameters(self, hidden: int, experts: int) -> Parameters:
        return table(hidden, experts)


@dataclass(frozen=True)
class ClampedSwiglu:
    """gate * sigmoid(alpha * gate) * (up + 1), gate at most `limit` and up within +-limit."""

    alpha: float
    limit: float


@dataclass(frozen=True)
class MixtureOfExperts:
    """The weighted sum of the chosen experts, each a gated MLP, and of those that serve every token.

    scale_input: the weights multiply what an expert reads instead of what it gives. shared: the
    experts of every token, as one; shared_gate: a sigmoid of one more logit weighs their output.
    """

    experts: int
    intermediate: int  # of one expert
    router: Router | SparseMixer
    activation: Gate | ClampedSwiglu = "silu"
    bias: bool = False
    scale_input: bool = False
    shared: GatedMLP | None = None
    shared_gate: bool = False

    def parameters(self, hidden: int) -> Parameters:
        size = self.intermediate
        both = nested(
            gate_up=stacked_linear(self.experts, hidden, size, size, bias=self.bias),
            down=stacked_linear(self.experts, size, hidden, bias=self.bias),
        )
        found = nested(router=self.router.parameters(hidden, self.experts), experts=both)
        if self.shared is not None:
            found |= nested(shared=self.shared.parameters(hidden))
        if self.shared_gate:
            found |= nested(shared_gate=table(hidden, 1))
        return found
