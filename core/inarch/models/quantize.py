"""Quantize a weight while it is loaded: each group of inputs to the integers that lie nearest."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from inarch.hal.experts import ExpertWeights
from inarch.hal.quantized_experts import QuantizedExpertWeights
from inarch.hal.quantized_linear import QuantizationScheme, QuantizedWeight

PIECE = 1 << 20  # elements that are worked on at a time: they stay in a CPU's cache


def quantize(weight: Tensor, scheme: QuantizationScheme) -> QuantizedWeight:
    """weight [..., N, K], floating-point. Without zero points: the range is even about 0.

    Scales are rounded to float16 first, so that a kernel may keep them so. With 4 bits the largest
    weight of a group, whatever its sign, becomes -8: a scale may then be negative, and no value of
    the sixteen is lost. A weight that is not finite counts as the largest that is.
    """
    if scheme.zero_points:
        raise ValueError("weights are quantized without zero points; a checkpoint may bring them")
    inputs, device = weight.shape[-1], weight.device
    values = torch.empty(weight.shape, dtype=torch.uint8, device=device)
    scales = torch.empty(*weight.shape[:-1], scheme.groups(inputs), device=device)
    found, given = QuantizedWeight(values, scales), weight.flatten(0, -2)
    if weight.is_meta:
        return found
    values, scales = values.flatten(0, -2), scales.flatten(0, -2)
    rows = max(1, PIECE // inputs)
    for first in range(0, len(given), rows):
        part = slice(first, first + rows)
        values[part], scales[part] = _quantize_rows(given[part].float(), scheme)
    return found


def quantize_experts(weights: ExpertWeights, scheme: QuantizationScheme) -> QuantizedExpertWeights:
    """Every projection of every expert; biases stay as they are."""
    return QuantizedExpertWeights(
        quantize(weights.gate_up, scheme),
        quantize(weights.down, scheme),
        weights.gate_up_bias,
        weights.down_bias,
    )


def _quantize_rows(weight: Tensor, scheme: QuantizationScheme) -> tuple[Tensor, Tensor]:
    """values [N, K] and scales [N, G]."""
    count, inputs = weight.shape
    group, groups = scheme.group or inputs, scheme.groups(inputs)
    grouped = F.pad(weight, (0, groups * group - inputs)).view(count, groups, group)
    grouped = torch.nan_to_num(grouped)
    half = 1 << (scheme.bits - 1)
    if scheme.bits == 4:
        at = grouped.abs().argmax(-1, keepdim=True)
        scales = grouped.gather(-1, at) / -half
    else:
        scales = grouped.abs().amax(-1, keepdim=True) / (half - 1)
    scales = _as_float16(scales)
    steps = torch.where(scales == 0, 0.0, grouped / scales)
    values = (steps.round_() + half).clamp_(0 if scheme.bits == 4 else 1, 2 * half - 1)
    return values.to(torch.uint8).view(count, -1)[:, :inputs], scales.squeeze(-1)


def _as_float16(scales: Tensor) -> Tensor:
    """Rounded to what float16 can hold, in float32."""
    most = torch.finfo(torch.float16).max
    return scales.clamp(-most, most).half().float()
