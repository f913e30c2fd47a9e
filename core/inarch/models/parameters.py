"""What a canonical tensor looks like, before any byte of it is read.

Canonical names are the decoder's own; a family says which tensors of a checkpoint make up each. A
parameter may be several of them, one below the other: the decoder multiplies once by the fused q, k
and v, while most checkpoints keep three tensors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Parameter:
    """Shape of one canonical tensor: [sum(rows), columns], or [sum(rows)] without columns.

    rows has one entry for each part that a checkpoint may keep apart (q, k and v; gate and up).
    scale: the weight of a norm; random weights of a norm are one, others lie around zero. offset: is
    added to what a checkpoint stores. default: what every element is where a checkpoint lacks the
    tensor, or one of its parts; None: it must be there. dtype: torch's name of what the tensor is
    kept in, if not that of the computation: "float32" for what half a precision would spoil. stack:
    the rows are those of so many equal matrices, one after the other, which are the first dimension.
    quantizable: the weight of a linear layer, or of experts, which `--quantization` may store in fewer
    bits.
    """

    rows: tuple[int, ...]
    columns: int | None = None
    scale: bool = False
    offset: float = 0.0
    default: float | None = None
    dtype: str | None = None
    stack: int | None = None
    quantizable: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        rows = sum(self.rows)
        if self.stack is None:
            return self.shape_of(rows)
        return (self.stack, *self.shape_of(rows // self.stack))

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    def shape_of(self, rows: int) -> tuple[int, ...]:
        return (rows,) if self.columns is None else (rows, self.columns)


Parameters = dict[str, Parameter]


def linear(inputs: int, *outputs: int, bias: bool = False) -> Parameters:
    """The tensors of a linear layer whose outputs are those of several, one after the other."""
    weight = {"weight": Parameter(outputs, inputs, quantizable=True)}
    return weight | {"bias": Parameter(outputs, default=0.0)} if bias else weight


def table(columns: int, *rows: int, bias: bool = False) -> Parameters:
    """As `linear`, for a matrix that is not the packed weight of a linear layer, as an embedding."""
    weight = {"weight": Parameter(rows, columns)}
    return weight | {"bias": Parameter(rows, default=0.0)} if bias else weight


def stacked_linear(stack: int, inputs: int, *outputs: int, bias: bool = False) -> Parameters:
    """As `linear`, for experts: weight [stack, sum(outputs), inputs] and bias [stack, sum(outputs)].

    The parts are those of the first expert, then those of the second.
    """
    weight = {"weight": Parameter(outputs * stack, inputs, stack=stack, quantizable=True)}
    return (
        weight | {"bias": Parameter(outputs * stack, default=0.0, stack=stack)} if bias else weight
    )


def nested(**modules: Parameters) -> Parameters:
    """Parameters of named modules, under dotted names."""
    return {
        f"{module}.{name}": parameter
        for module, own in modules.items()
        for name, parameter in own.items()
    }
