"""Gated activations: gate and up are read once, the product is written once."""

# No deferred annotations here: Triton reads `tl.constexpr` as an object, not as a string.
import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from inarch_triton.options import launch_options

BLOCK = 1024
WARPS = 4


@triton.jit
def gated_kernel(
    x, out, x_row,
    FEATURES: tl.constexpr, BLOCK: tl.constexpr, GELU: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """One program for a token and BLOCK features: activation(x[:, :N]) * x[:, N:]."""
    row = tl.program_id(0).to(tl.int64)
    feature = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = feature < FEATURES
    if PDL:
        gdc_wait()
        gdc_launch_dependents()
    gate = tl.load(x + row * x_row + feature, mask=inside, other=0.0)
    up = tl.load(x + row * x_row + FEATURES + feature, mask=inside, other=0.0)
    wide = gate.to(tl.float32)
    if GELU:  # x * (1 + tanh(y)) / 2 = x * sigmoid(2 y)
        active = wide * tl.sigmoid(1.5957691216057308 * (wide + 0.044715 * wide * wide * wide))
    else:
        active = wide * tl.sigmoid(wide)
    # Rounded before the product, as the reference rounds.
    active = active.to(gate.dtype).to(tl.float32) * up.to(tl.float32)
    tl.store(out + row * FEATURES + feature, active.to(gate.dtype), mask=inside)


def silu_mul(x: Tensor) -> Tensor:
    return _launch(x, gelu=False)


def gelu_mul(x: Tensor) -> Tensor:
    return _launch(x, gelu=True)


def _launch(x: Tensor, *, gelu: bool) -> Tensor:
    x = x if x.stride(-1) == 1 else x.contiguous()
    tokens, features = x.shape[0], x.shape[1] // 2
    out = torch.empty((tokens, features), dtype=x.dtype, device=x.device)
    if tokens:
        gated_kernel[(tokens, triton.cdiv(features, BLOCK))](
            x, out, x.stride(0),
            FEATURES=features, BLOCK=BLOCK, GELU=gelu, num_warps=WARPS,
            **launch_options(x.device),
        )  # fmt: skip
    return out
