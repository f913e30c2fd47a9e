"""A layer and a whole model, as data."""

from __future__ import annotations

from dataclasses import dataclass

from inarch.models.description.attention import GroupedQueryAttention
from inarch.models.description.feed_forward import MLP, GatedMLP
from inarch.models.description.latent import LatentAttention
from inarch.models.description.moe import MixtureOfExperts
from inarch.models.description.norm import Norm
from inarch.models.description.parallel import ParallelMixers
from inarch.models.description.pooling import PooledHead
from inarch.models.description.recurrent import GatedDeltaNet, KimiDeltaAttention, Mamba2
from inarch.models.description.rotary import LongRopeScaling
from inarch.models.parameters import Parameters, linear, nested, table

Recurrent = GatedDeltaNet | KimiDeltaAttention | Mamba2
Mixer = GroupedQueryAttention | LatentAttention | Recurrent | ParallelMixers
FeedForward = GatedMLP | MLP | MixtureOfExperts


@dataclass(frozen=True)
class Layer:
    """x + mixer(norm(x)), then x + feed_forward(norm(x)).

    A part that is None is left out: a norm, or one of the two halves with its norms. Post-norms work
    on what a half gives, before it is added. parallel: both halves read the same x, and share the
    mixer's norm where the feed-forward has none. residual_scale multiplies what is added.
    normed_residual: the residual stream goes on from what the two norms give, not from what they
    read: what was added is normed then, as in BERT.
    """

    mixer: Mixer | None
    feed_forward: FeedForward | None
    mixer_norm: Norm | None
    feed_forward_norm: Norm | None
    mixer_post_norm: Norm | None = None
    feed_forward_post_norm: Norm | None = None
    parallel: bool = False
    residual_scale: float = 1.0
    normed_residual: bool = False

    def parameters(self, hidden: int) -> Parameters:
        halves = {"mixer": self.mixer, "feed_forward": self.feed_forward}
        norms = {
            "mixer_norm": self.mixer_norm,
            "mixer_post_norm": self.mixer_post_norm,
            "feed_forward_norm": self.feed_forward_norm,
            "feed_forward_post_norm": self.feed_forward_post_norm,
        }
        parts = {name: part for name, part in (halves | norms).items() if part is not None}
        return nested(**{name: part.parameters(hidden) for name, part in parts.items()})


@dataclass(frozen=True)
class LearnedPositions:
    """An embedding of position + offset that is added to the token's."""

    count: int  # rows of the table
    offset: int = 0

    def parameters(self, hidden: int) -> Parameters:
        return table(hidden, self.count)


@dataclass(frozen=True)
class Description:
    """A whole model. tie_embeddings: the output head uses the embedding's weight.

    embedding_scale, rounded to the dtype of the computation, multiplies the embeddings, before
    positions are added and embedding_norm works on them. token_types: how many kinds of text it tells
    apart, such as the two of a pair, each with an embedding that is added too; 0: it does not.
    logit_scale multiplies the logits, which are soft-capped to +-logit_softcap after that. pooled:
    what it has in place of an output head; None: it is a language model.
    """

    vocab_size: int
    hidden: int
    layers: tuple[Layer, ...]
    norm: Norm
    context_length: int  # tokens; the positions for which rotations are tabled
    tie_embeddings: bool = False
    head_bias: bool = False
    embedding_scale: float = 1.0
    positions: LearnedPositions | None = None
    embedding_norm: Norm | None = None
    logit_scale: float = 1.0
    logit_softcap: float | None = None
    token_types: int = 0
    pooled: PooledHead | None = None

    @property
    def causal(self) -> bool:
        """Whether no token sees a later one, so that a prompt may come in chunks."""
        return all(getattr(layer.mixer, "causal", True) for layer in self.layers)

    @property
    def has_states(self) -> bool:
        """Whether a mixer keeps a recurrent state."""
        return any(layer.mixer is not None and _has_state(layer.mixer) for layer in self.layers)

    @property
    def long_from(self) -> int | None:
        """Tokens above which a sequence is rotated otherwise, by LongRoPE; None: it never is.

        The rows of a rotary table for a longer sequence begin at `context_length`.
        """
        for layer in self.layers:
            rotary = getattr(layer.mixer, "rotary", None)
            scaling = None if rotary is None else rotary.scaling
            if isinstance(scaling, LongRopeScaling):
                original = scaling.original_context
                return original if original < self.context_length else None
        return None

    def parameters(self) -> Parameters:
        """Every canonical tensor of the model."""
        parts: dict[str, Layer | LearnedPositions | Norm | PooledHead | None] = {
            "positions": self.positions,
            "embedding_norm": self.embedding_norm,
            **{f"layers.{index}": layer for index, layer in enumerate(self.layers)},
            "norm": self.norm,
            "pooled": self.pooled,
        }
        found = nested(embedding=table(self.hidden, self.vocab_size))
        for name, part in parts.items():
            if part is not None:
                found |= nested(**{name: part.parameters(self.hidden)})
        if self.token_types:
            found |= nested(token_types=table(self.hidden, self.token_types))
        if self.pooled is not None:
            return found
        head = linear(self.hidden, self.vocab_size, bias=self.head_bias)
        if self.tie_embeddings:
            del head["weight"]
        return found | nested(head=head)


def _has_state(mixer: Mixer) -> bool:
    if isinstance(mixer, ParallelMixers):
        return any(_has_state(branch.mixer) for branch in mixer.branches)
    return isinstance(mixer, Recurrent)
