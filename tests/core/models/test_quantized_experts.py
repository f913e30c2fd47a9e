"""`--quantization` of mixtures of experts: what is answered is what the rounded weights answer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from inarch.hal.op import Kernel
from inarch.hal.quantized_linear import QuantizationScheme, QuantizedLinearSpec
from inarch.hal.reference.quantized_grouped_linear import ReferenceQuantizedGroupedLinear
from inarch.hal.reference.quantized_linear import dequantize
from inarch.models.checkpoint import SINGLE
from inarch.models.quantize import quantize

from .oracle import Saved, load

PROMPT = [5, 17, 42, 99, 3, 60, 61, 62]
SCHEMES = [QuantizationScheme(8, 32), QuantizationScheme(4, 32)]
# What keeps its precision: the embedding, routers, and vectors (norms, biases, sinks).
KEPT = (
    "embed_tokens.weight",
    "mlp.gate.weight",
    "router.weight",
    "_bias",
    "shared_expert_gate.weight",
)


def rounded(weight: Tensor, scheme: QuantizationScheme) -> Tensor:
    """[..., N, K] as it is after quantization."""
    flat = weight.flatten(0, -2)
    spec = QuantizedLinearSpec(*flat.shape, flat.dtype, **vars(scheme))
    return dequantize(spec, quantize(flat, scheme)).view(weight.shape)


def with_rounded_weights(saved: Saved, scheme: QuantizationScheme, folder: Path) -> Path:
    """The checkpoint with every weight that `--quantization` takes replaced by its rounded one."""
    saved.model.save_pretrained(folder)
    tensors = load_file(folder / SINGLE)
    for name, tensor in tensors.items():
        if tensor.dim() < 2 or name.endswith(KEPT):
            continue
        # gpt-oss stores the inputs of an expert as rows.
        stacked = tensor.dim() == 3
        seen = tensor.transpose(1, 2).contiguous() if stacked else tensor
        found = rounded(seen, scheme)
        tensors[name] = found.transpose(1, 2).contiguous() if stacked else found
    save_file(tensors, folder / SINGLE, metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
@pytest.mark.parametrize("name", ["qwen3-moe", "qwen2-moe", "gpt-oss"])
def test_logits_are_those_of_the_rounded_weights(
    saved: Callable[[str], Saved], tmp_path: Path, name: str, scheme: QuantizationScheme
) -> None:
    model = saved(name)
    found = load(model.folder, quantization=scheme).step({0: PROMPT})[0]
    expected = load(with_rounded_weights(model, scheme, tmp_path)).step({0: PROMPT})[0]
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)
    exact = load(model.folder).step({0: PROMPT})[0]
    assert (found - exact).abs().max() > 1e-3


def test_a_backend_may_bring_the_quantized_product_alone(saved: Callable[[str], Saved]) -> None:
    class Counted(ReferenceQuantizedGroupedLinear):
        calls = 0

        def apply(self, *args: object) -> Tensor:
            Counted.calls += 1
            return super().apply(*args)  # type: ignore[arg-type]

    def plain() -> None:
        raise AssertionError("it multiplies by plain weights")

    kernels = [
        Kernel("quantized_grouped_linear", "counted", Counted),
        Kernel("grouped_linear", "plain", plain),
        Kernel("experts", "plain", plain),
    ]
    scheme = SCHEMES[0]
    found = load(saved("qwen2-moe").folder, kernels=kernels, quantization=scheme)
    logits = found.step({0: PROMPT})[0]
    assert Counted.calls == 4  # two in each of two layers
    alone = load(saved("qwen2-moe").folder, quantization=scheme).step({0: PROMPT})[0]
    assert torch.equal(logits, alone)


def test_a_stack_is_quantized_as_its_matrices_are() -> None:
    weight = torch.randn(3, 5, 70, generator=torch.Generator().manual_seed(0))
    scheme = QuantizationScheme(4, 32)
    together = quantize(weight, scheme)
    for expert, own in enumerate(weight):
        alone = quantize(own, scheme)
        assert torch.equal(together.values[expert], alone.values)
        assert torch.equal(together.scales[expert], alone.scales)


def test_shapes_alone_are_quantized_without_numbers() -> None:
    found = quantize(torch.empty(128, 1536, 2048, device="meta"), QuantizationScheme(4, 64))
    assert found.values.shape == (128, 1536, 2048)
    assert found.scales.shape == (128, 1536, 32)
    assert found.scales.is_meta
