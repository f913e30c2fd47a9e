"""Feed-forwards, as data: what works on each token alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from inarch.models.parameters import Parameter, Parameters, linear, nested

# "gelu" is the exact one, "gelu_tanh" its tanh approximation, "relu_squared" max(x, 0)^2
Gate = Literal["silu", "gelu", "gelu_tanh"]
Activation = Literal["silu", "gelu", "gelu_tanh", "relu", "relu_squared", "xielu"]

XIELU: Parameters = {
    "alpha_p": Parameter((1,)),
    "alpha_n": Parameter((1,)),
    "beta": Parameter((1,), default=0.5, dtype="float32"),
    "eps": Parameter((1,), default=-1e-6, dtype="float32"),
}


@dataclass(frozen=True)
class GatedMLP:
    """down(activation(gate(x)) * up(x)). The scales multiply what the gate and what down gives."""

    intermediate: int
    activation: Gate = "silu"
    bias: bool = False
    gate_scale: float = 1.0
    out_scale: float = 1.0

    def parameters(self, hidden: int) -> Parameters:
        return nested(
            gate_up=linear(hidden, self.intermediate, self.intermediate, bias=self.bias),
            down=linear(self.intermediate, hidden, bias=self.bias),
        )


@dataclass(frozen=True)
class MLP:
    """down(activation(up(x))). "xielu" has numbers of its own."""

    intermediate: int
    activation: Activation
    bias: bool = True

    def parameters(self, hidden: int) -> Parameters:
        found = nested(
            up=linear(hidden, self.intermediate, bias=self.bias),
            down=linear(self.intermediate, hidden, bias=self.bias),
        )
        if self.activation == "xielu":
            found |= nested(activation=XIELU)
        return found
