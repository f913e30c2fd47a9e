"""Mixers with a recurrent state, as data: what they keep does not grow with the sequence.

Each has a short causal convolution, which keeps its last inputs, and a recurrence over tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

from inarch.models.parameters import Parameter, Parameters, linear, nested


@dataclass(frozen=True)
class GatedDeltaNet:
    """Linear attention by the gated delta rule. Source: Yang et al., 2024, arXiv:2412.06464.

    Each key head serves value_heads / key_heads value heads side by side. Projected are q, k, v and
    the output's gate (z); what each token writes with (b) and how much decays (a).
    """

    key_heads: int
    value_heads: int
    key_dim: int  # of a head
    value_dim: int
    conv_width: int  # tokens, its own included
    norm_eps: float

    @property
    def keys(self) -> int:
        return self.key_heads * self.key_dim

    @property
    def values(self) -> int:
        return self.value_heads * self.value_dim

    def parameters(self, hidden: int) -> Parameters:
        return nested(
            qkvz=linear(hidden, self.keys, self.keys, self.values, self.values),
            ba=linear(hidden, self.value_heads, self.value_heads),
            conv=_conv(2 * self.keys + self.values, self.conv_width),
            norm={"weight": Parameter((self.value_dim,), scale=True)},
            out=linear(self.values, hidden),
        ) | {"a_log": Parameter((self.value_heads,)), "dt_bias": Parameter((self.value_heads,))}


@dataclass(frozen=True)
class KimiDeltaAttention:
    """The gated delta rule with a decay for each feature of a key. Source: arXiv:2510.26692.

    Decays and the output's gate come through `head_dim` features first. Projected are q, k, v, those
    two and what each token writes with.
    """

    heads: int
    head_dim: int
    conv_width: int  # tokens, its own included
    norm_eps: float

    @property
    def inner(self) -> int:
        return self.heads * self.head_dim

    def parameters(self, hidden: int) -> Parameters:
        n, low = self.inner, self.head_dim
        return nested(
            project=linear(hidden, n, n, n, low, low, self.heads),
            decay=linear(low, n),
            gate=linear(low, n),
            conv={"weight": Parameter((n, n, n), self.conv_width)},
            norm={"weight": Parameter((low,), scale=True)},
            out=linear(n, hidden),
        ) | {"a_log": Parameter((self.heads,)), "dt_bias": Parameter((n,))}


@dataclass(frozen=True)
class GatedNorm:
    """RMSNorm of each group of features beside a gate. gate_first: the gate is applied before it."""

    eps: float
    groups: int = 1
    gate_first: bool = True


@dataclass(frozen=True)
class Mamba2:
    """A selective state space with one decay a head. Source: Dao and Gu, 2024, arXiv:2405.21060."""

    heads: int
    head_dim: int
    groups: int  # of heads that share what they write and read
    state_size: int
    conv_width: int  # tokens, its own included
    norm: GatedNorm | None  # None: the gate alone
    conv_bias: bool = True
    in_bias: bool = False
    out_bias: bool = False
    time_step_limit: tuple[float, float] = (0.0, float("inf"))
    # of what is projected: gate, x, B, C and the time step
    scales: tuple[float, float, float, float, float] = (1.0, 1.0, 1.0, 1.0, 1.0)

    @property
    def inner(self) -> int:
        return self.heads * self.head_dim

    @property
    def parts(self) -> tuple[int, int, int, int, int]:
        """Features of the gate, x, B, C and the time step."""
        shared = self.groups * self.state_size
        return self.inner, self.inner, shared, shared, self.heads

    def parameters(self, hidden: int) -> Parameters:
        found = nested(
            project=linear(hidden, sum(self.parts), bias=self.in_bias),
            conv=_conv(sum(self.parts[1:4]), self.conv_width, bias=self.conv_bias),
            out=linear(self.inner, hidden, bias=self.out_bias),
        )
        if self.norm is not None:
            found |= nested(norm={"weight": Parameter((self.inner,), scale=True)})
        each = Parameter((self.heads,))
        return found | {"a_log": each, "dt_bias": each, "skip": each}


def _conv(channels: int, width: int, *, bias: bool = False) -> Parameters:
    weight = {"weight": Parameter((channels,), width)}
    return weight | {"bias": Parameter((channels,))} if bias else weight
