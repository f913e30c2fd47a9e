"""LayerNorm, alone and with the residual sum before it: as RMSNorm, with a mean and a shift."""

# No deferred annotations here: Triton reads `tl.constexpr` as an object, not as a string.
import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from inarch_triton.norm import norm_constants, norm_warps
from inarch_triton.options import launch_options


@triton.jit
def layer_norm_kernel(
    x, residual, weight, bias, out, x_row, residual_row, rows, eps,
    FEATURES: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr, ADD: tl.constexpr,
    BIAS: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """out [rows, FEATURES] = norm of x, or with ADD of the sum, which is written to residual."""
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)[:, None]
    feature = tl.arange(0, BLOCK)[None, :]
    known = feature < FEATURES
    inside = (row < rows) & known
    dtype: tl.constexpr = out.dtype.element_ty
    gain = tl.load(weight + feature, mask=known, other=0.0).to(tl.float32)
    if BIAS:
        shift = tl.load(bias + feature, mask=known, other=0.0).to(tl.float32)
    if PDL:
        gdc_wait()
        gdc_launch_dependents()
    wide = tl.load(x + row * x_row + feature, mask=inside, other=0.0).to(tl.float32)
    if ADD:
        place = residual + row * residual_row + feature
        wide += tl.load(place, mask=inside, other=0.0).to(tl.float32)
        total = wide.to(dtype)
        tl.store(place, total, mask=inside)
        wide = total.to(tl.float32)
    mean = tl.sum(wide, 1) / FEATURES
    wide = tl.where(inside, wide - mean[:, None], 0.0)
    scale = tl.rsqrt(tl.sum(wide * wide, 1) / FEATURES + eps)[:, None]
    normed = wide * scale * gain
    if BIAS:
        normed += shift
    tl.store(out + row * FEATURES + feature, normed.to(dtype), mask=inside)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    _launch(_rows(x), None, weight, bias, out, eps)
    return out


def add_layer_norm(
    x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    """Writes the sum over `residual`."""
    x, residual = _rows(x), _rows(residual)
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    _launch(x, residual, weight, bias, out, eps)
    return out, residual


def _rows(x: Tensor) -> Tensor:
    x = x.reshape(-1, x.shape[-1])
    return x if x.stride(-1) == 1 else x.contiguous()


def _launch(
    x: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor | None, out: Tensor, eps: float
) -> None:
    rows, features = x.shape
    if rows == 0:
        return
    constants = norm_constants(features)
    layer_norm_kernel[(triton.cdiv(rows, constants["ROWS"]),)](
        x, residual, weight, bias, out,
        x.stride(0), 0 if residual is None else residual.stride(0), rows, eps,
        **constants, ADD=residual is not None, BIAS=bias is not None,
        num_warps=norm_warps(features), **launch_options(x.device),
    )  # fmt: skip
