"""Activations, with a gate or without: what they work on is read once, the result is written once."""

# No deferred annotations here: Triton reads `tl.constexpr` as an object, not as a string.
import functools

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from inarch_triton.options import launch_options

BLOCK = 1024
WARPS = 4


@triton.jit
def activated(x, ACTIVATION: tl.constexpr):
    """Of x in float32."""
    if ACTIVATION == "silu":
        active = x * tl.sigmoid(x)
    elif ACTIVATION == "gelu_tanh":  # x * (1 + tanh(y)) / 2 = x * sigmoid(2 y)
        active = x * tl.sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x))
    elif ACTIVATION == "gelu":
        active = 0.5 * x * (1.0 + tl.erf(0.7071067811865476 * x))
    elif ACTIVATION == "relu":
        active = tl.maximum(x, 0.0)
    else:
        tl.static_assert(ACTIVATION == "relu_squared")
        active = tl.maximum(x, 0.0) * tl.maximum(x, 0.0)
    return active


@triton.jit
def activation_kernel(
    x, out, x_row,
    FEATURES: tl.constexpr, BLOCK: tl.constexpr, ACTIVATION: tl.constexpr, GATED: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    """One program for a token and BLOCK features: activation(x[:, :N]), times x[:, N:] if GATED."""
    row = tl.program_id(0).to(tl.int64)
    feature = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = feature < FEATURES
    if PDL:
        gdc_wait()
        gdc_launch_dependents()
    read = tl.load(x + row * x_row + feature, mask=inside, other=0.0)
    if GATED:
        up = tl.load(x + row * x_row + FEATURES + feature, mask=inside, other=0.0)
    # Rounded before the product, as the reference rounds.
    active = activated(read.to(tl.float32), ACTIVATION).to(read.dtype)
    if GATED:
        active = (active.to(tl.float32) * up.to(tl.float32)).to(read.dtype)
    tl.store(out + row * FEATURES + feature, active, mask=inside)


def _launch(x: Tensor, *, activation: str, gated: bool) -> Tensor:
    x = x if x.stride(-1) == 1 else x.contiguous()
    tokens, features = x.shape[0], x.shape[1] // 2 if gated else x.shape[1]
    out = torch.empty((tokens, features), dtype=x.dtype, device=x.device)
    if tokens:
        activation_kernel[(tokens, triton.cdiv(features, BLOCK))](
            x, out, x.stride(0),
            FEATURES=features, BLOCK=BLOCK, ACTIVATION=activation, GATED=gated, num_warps=WARPS,
            **launch_options(x.device),
        )  # fmt: skip
    return out


silu_mul = functools.partial(_launch, activation="silu", gated=True)
gelu_mul = functools.partial(_launch, activation="gelu_tanh", gated=True)
gelu_exact_mul = functools.partial(_launch, activation="gelu", gated=True)
silu = functools.partial(_launch, activation="silu", gated=False)
gelu = functools.partial(_launch, activation="gelu", gated=False)
gelu_tanh = functools.partial(_launch, activation="gelu_tanh", gated=False)
relu = functools.partial(_launch, activation="relu", gated=False)
relu_squared = functools.partial(_launch, activation="relu_squared", gated=False)
