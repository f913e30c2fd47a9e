"""Feed-forwards, as data: what works on each token alone."""

from __future__ import annotations

from dataclasses import dataclass

from inarch.models.parameters import Parameters, linear, nested


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
