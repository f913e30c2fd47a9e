"""What a model is, as data: a family fills this in, the one decoder runs it.

A model is a stack of layers; a layer is a mixer (it moves information between tokens) and a
feed-forward (it works on each token alone). A new kind of either is one more frozen dataclass here,
which names its tensors, and one class in `inarch.models.layers` that runs it; the decoder stays as
it is. No torch here: a description can be compared, hashed and printed before anything is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass

from inarch.models.parameters import Parameters, linear, nested, norm


@dataclass(frozen=True)
class LinearScaling:
    """Positions divided by `factor`. Source: Chen et al., 2023, arXiv:2306.15595."""

    factor: float


@dataclass(frozen=True)
class Llama3Scaling:
    """Only slow rotations are divided by `factor`, with a smooth border, as in Llama 3.1.

    A rotation that turns fewer than `low_freq_factor` times in `original_context` tokens is slow,
    one that turns more than `high_freq_factor` times is left alone.
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_context: int  # tokens


@dataclass(frozen=True)
class YarnScaling:
    """As Llama3Scaling with a ramp over features. Source: Peng et al., 2023, arXiv:2309.00071.

    `magnitude` multiplies cosines and sines. `truncate` rounds the ramp's ends to whole features.
    """

    factor: float
    original_context: int  # tokens
    magnitude: float
    beta_fast: float = 32.0  # turns in the original context
    beta_slow: float = 1.0
    truncate: bool = True


RotaryScaling = LinearScaling | Llama3Scaling | YarnScaling


@dataclass(frozen=True)
class Rotary:
    """Rotary position embedding of the first `dim` features of a head, in the half layout."""

    dim: int
    theta: float
    scaling: RotaryScaling | None = None


@dataclass(frozen=True)
class GroupedQueryAttention:
    """Softmax attention in which q_heads / kv_heads query heads share one KV head."""

    q_heads: int
    kv_heads: int
    head_dim: int
    rotary: Rotary
    scale: float  # multiplies q . k
    window: int | None = None  # tokens a query sees, itself included; None = all
    qkv_bias: bool = False
    out_bias: bool = False
    qk_norm: bool = False  # RMSNorm of every head of q and k, before the rotation

    def parameters(self, hidden: int) -> Parameters:
        q, kv = self.q_heads * self.head_dim, self.kv_heads * self.head_dim
        found = nested(
            qkv=linear(hidden, q, kv, kv, bias=self.qkv_bias),
            out=linear(q, hidden, bias=self.out_bias),
        )
        if self.qk_norm:
            found |= nested(q_norm=norm(self.head_dim), k_norm=norm(self.head_dim))
        return found


@dataclass(frozen=True)
class GatedMLP:
    """down(activation(gate(x)) * up(x)). activation: "silu", or "gelu_tanh" for the tanh one."""

    intermediate: int
    activation: str = "silu"
    bias: bool = False

    def parameters(self, hidden: int) -> Parameters:
        return nested(
            gate_up=linear(hidden, self.intermediate, self.intermediate, bias=self.bias),
            down=linear(self.intermediate, hidden, bias=self.bias),
        )


Mixer = GroupedQueryAttention
FeedForward = GatedMLP


@dataclass(frozen=True)
class Layer:
    """x + mixer(norm(x)), then x + feed_forward(norm(x)); both norms are RMSNorm."""

    mixer: Mixer
    feed_forward: FeedForward

    def parameters(self, hidden: int) -> Parameters:
        return nested(
            mixer_norm=norm(hidden),
            mixer=self.mixer.parameters(hidden),
            feed_forward_norm=norm(hidden),
            feed_forward=self.feed_forward.parameters(hidden),
        )


@dataclass(frozen=True)
class Description:
    """A whole model. tie_embeddings: the output head uses the embedding's weight."""

    vocab_size: int
    hidden: int
    layers: tuple[Layer, ...]
    norm_eps: float
    context_length: int  # tokens; the positions for which rotations are tabled
    tie_embeddings: bool = False

    def parameters(self) -> Parameters:
        """Every canonical tensor of the model, in the order in which the decoder asks for them."""
        found = nested(embedding=linear(self.hidden, self.vocab_size))
        for index, layer in enumerate(self.layers):
            found |= nested(**{f"layers.{index}": layer.parameters(self.hidden)})
        found |= nested(norm=norm(self.hidden))
        if not self.tie_embeddings:
            found |= nested(head=linear(self.hidden, self.vocab_size))
        return found
