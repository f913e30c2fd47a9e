"""RMSNorm, alone and with the residual sum before it: a row in registers, read and written once."""

# No deferred annotations here: Triton reads `tl.constexpr` as an object, not as a string.
import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from inarch_triton.options import launch_options

MOST_FEATURES = 16384  # of one row in registers
BLOCK_ELEMENTS = 2048  # short rows share a program


@triton.jit
def scaled(x, weight, scale, dtype: tl.constexpr):
    """x * scale, rounded as weight is, times weight: the order in which the reference rounds."""
    return ((x * scale).to(weight.dtype).to(tl.float32) * weight.to(tl.float32)).to(dtype)


@triton.jit
def rms_norm_kernel(
    x, residual, weight, out, x_row, residual_row, rows, eps,
    FEATURES: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr, ADD: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    """out [rows, FEATURES] = norm of x, or with ADD of the sum, which is written to residual."""
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)[:, None]
    feature = tl.arange(0, BLOCK)[None, :]
    inside = (row < rows) & (feature < FEATURES)
    dtype: tl.constexpr = out.dtype.element_ty
    gain = tl.load(weight + feature, mask=feature < FEATURES, other=0.0)
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
    scale = tl.rsqrt(tl.sum(wide * wide, 1) / FEATURES + eps)[:, None]
    tl.store(out + row * FEATURES + feature, scaled(wide, gain, scale, dtype), mask=inside)


def norm_constants(features: int) -> dict[str, int]:
    block = triton.next_power_of_2(features)
    return {"FEATURES": features, "BLOCK": block, "ROWS": max(1, BLOCK_ELEMENTS // block)}


def norm_warps(features: int) -> int:
    return 4 if features <= 2048 else 8 if features <= 8192 else 16


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    rows = x.reshape(-1, x.shape[-1])
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    _launch(_unit(rows), None, weight, out, eps)
    return out


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Writes the sum over `residual`."""
    x, residual = (_unit(part.reshape(-1, part.shape[-1])) for part in (x, residual))
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    _launch(x, residual, weight, out, eps)
    return out, residual


def _unit(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


def _launch(x: Tensor, residual: Tensor | None, weight: Tensor, out: Tensor, eps: float) -> None:
    rows, features = x.shape
    if rows == 0:
        return
    constants = norm_constants(features)
    rms_norm_kernel[(triton.cdiv(rows, constants["ROWS"]),)](
        x, residual, weight, out,
        x.stride(0), 0 if residual is None else residual.stride(0), rows, eps,
        **constants, ADD=residual is not None, num_warps=norm_warps(features),
        **launch_options(x.device),
    )  # fmt: skip
