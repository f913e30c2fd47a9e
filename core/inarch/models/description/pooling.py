"""How a model ends that yields vectors or scores of a prompt, as data.

In place of the head that makes logits of the next token it has a pooled head: the hidden states of
the prompt's tokens become one vector, which may pass through further small layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from inarch.models.description.norm import LayerNorm
from inarch.models.parameters import Parameters, nested, table

Scores = Literal["softmax", "sigmoid", "raw"]
PoolingKind = Literal["first", "last", "mean", "sqrt_mean", "weighted_mean", "max", "each"]


@dataclass(frozen=True)
class Pooling:
    """What becomes of the hidden states of n tokens.

    first, last: that token's. mean: their sum / n; sqrt_mean: / sqrt(n). weighted_mean: the token at
    place i, from 1 on, counts i times. max: the largest of each feature. each: all of them, each a
    vector of its own.
    """

    kind: PoolingKind

    def positions(self, tokens: int) -> range:
        """Of a prompt's tokens those whose hidden states matter."""
        match self.kind:
            case "first":
                return range(1)
            case "last":
                return range(tokens - 1, tokens)
            case _:
                return range(tokens)

    def weights(self, start: int, end: int, tokens: int) -> np.ndarray:
        """float64 [end - start]: how much positions of a prompt of so many tokens count."""
        places = np.arange(start, end) + 1.0
        match self.kind:
            case "mean":
                return np.full_like(places, 1 / tokens)
            case "sqrt_mean":
                return np.full_like(places, tokens**-0.5)
            case "weighted_mean":
                return places / (tokens * (tokens + 1) / 2)
            case _:
                return np.ones_like(places)


@dataclass(frozen=True)
class Dense:
    """norm(activation(x W^T + b)) of a pooled vector.

    activation: "identity", "tanh", "relu", "gelu" (exact), "silu" or "sigmoid".
    """

    outputs: int
    bias: bool = True
    activation: str = "identity"
    norm: LayerNorm | None = None

    def parameters(self, inputs: int) -> Parameters:
        found = table(inputs, self.outputs, bias=self.bias)
        return (
            found if self.norm is None else found | nested(norm=self.norm.parameters(self.outputs))
        )


@dataclass(frozen=True)
class PooledHead:
    """Pooling, then each of `layers` in turn, then vectors of length 1 if `normalize`.

    labels: the outputs are scores of these, else they are an embedding. scores: what makes
    probabilities of them, for who asks; "raw": nothing.
    """

    pooling: Pooling
    layers: tuple[Dense, ...] = ()
    normalize: bool = False
    labels: tuple[str, ...] = ()
    scores: Scores = "raw"

    def outputs(self, hidden: int) -> int:
        return self.layers[-1].outputs if self.layers else hidden

    def parameters(self, hidden: int) -> Parameters:
        found: Parameters = {}
        for index, layer in enumerate(self.layers):
            found |= nested(**{str(index): layer.parameters(hidden)})
            hidden = layer.outputs
        return found


# Of a language model that is asked for vectors.
LAST_TOKEN = PooledHead(Pooling("last"), normalize=True)
