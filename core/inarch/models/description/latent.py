"""Latent attention, as data: keys and values are kept as one short row per token."""

from __future__ import annotations

from dataclasses import dataclass

from inarch.models.description.norm import Norm
from inarch.models.description.rotary import Rotary
from inarch.models.parameters import Parameters, linear, nested, table


@dataclass(frozen=True)
class LatentAttention:
    """Softmax attention of keys and values that are linear maps of a normed latent.

    A query or key is nope_dim features that know no position and rope_dim that are rotated; the
    rotated ones of the keys are shared by all heads. Queries are mapped from a normed latent of
    their own, or at once. Of a token kv_rank + rope_dim features are kept. See inarch.hal.latent.
    """

    q_heads: int
    q_rank: int | None  # features of the queries' latent; None: they have none
    kv_rank: int  # features of the latent of keys and values
    nope_dim: int
    rope_dim: int
    value_dim: int
    rotary: Rotary | None  # None: the layer knows no positions
    scale: float  # multiplies q . k
    norm: Norm  # of both latents
    down_bias: bool = False  # of what gives the latents and the rotated keys
    out_bias: bool = False

    def parameters(self, hidden: int) -> Parameters:
        queries = self.q_heads * (self.nope_dim + self.rope_dim)
        keys_and_values = self.q_heads * (self.nope_dim + self.value_dim)
        row = self.kv_rank + self.rope_dim
        found = nested(
            down=linear(hidden, self.q_rank or queries, row, bias=self.down_bias),
            kv_norm=self.norm.parameters(self.kv_rank),
            kv_up=table(self.kv_rank, keys_and_values),
            out=linear(self.q_heads * self.value_dim, hidden, bias=self.out_bias),
        )
        if self.q_rank is not None:
            found |= nested(
                q_norm=self.norm.parameters(self.q_rank), q_up=linear(self.q_rank, queries)
            )
        return found
