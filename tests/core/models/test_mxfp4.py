"""MXFP4 experts of gpt-oss: the format itself, and checkpoints that hold it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers.integrations.mxfp4 import _convert_moe_packed_tensors

from inarch.errors import ModelError
from inarch.models.checkpoint import SINGLE
from inarch.models.mxfp4 import dequantize_mxfp4

from .oracle import load, make

PROMPT = [5, 17, 42, 99, 3, 60, 61, 62]


def logits(folder: Path, dtype: torch.dtype = torch.float32) -> Tensor:
    return load(folder, dtype=dtype).step({0: PROMPT})[0]


def random_mxfp4(*shape: int) -> tuple[Tensor, Tensor]:
    """Blocks [..., G, 16] and scales [..., G] around one half."""
    blocks = torch.randint(0, 256, (*shape, 16), dtype=torch.uint8)
    return blocks, torch.randint(122, 126, shape, dtype=torch.uint8)


def test_mxfp4_means_what_transformers_makes_of_it() -> None:
    blocks, _ = random_mxfp4(3, 4, 8)
    scales = torch.randint(90, 160, (3, 4, 8), dtype=torch.uint8)
    expected = _convert_moe_packed_tensors(blocks, scales, dtype=torch.float32)
    assert torch.equal(dequantize_mxfp4(blocks, scales), expected.transpose(1, 2))


def test_every_byte_of_mxfp4_is_two_numbers_the_lower_half_first() -> None:
    blocks = torch.tensor([[0x1F, 0x82, *[0] * 14]], dtype=torch.uint8)
    found = dequantize_mxfp4(blocks, torch.tensor([128], dtype=torch.uint8))
    assert found[:4].tolist() == [-12.0, 1.0, 2.0, -0.0]
    nan = dequantize_mxfp4(blocks, torch.tensor([255], dtype=torch.uint8))
    assert nan.isnan().all()


@pytest.fixture
def packed(tmp_path: Path) -> tuple[Path, Path]:
    """One gpt-oss whose experts are in MXFP4, and the same with the values that these mean."""
    plain = make("gpt-oss", tmp_path / "plain").folder
    tensors = load_file(plain / SINGLE)
    packed = dict(tensors)
    for name in [name for name in tensors if name.endswith(("gate_up_proj", "down_proj"))]:
        experts, inputs, outputs = tensors[name].shape
        blocks, scales = random_mxfp4(experts, outputs, inputs // 32)
        packed |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
        del packed[name]
        tensors[name] = dequantize_mxfp4(blocks, scales).transpose(1, 2).contiguous()
    config = json.loads((plain / "config.json").read_text())
    (tmp_path / "packed").mkdir()
    config["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}
    (tmp_path / "packed" / "config.json").write_text(json.dumps(config))
    save_file(packed, tmp_path / "packed" / SINGLE)
    save_file(tensors, plain / SINGLE)
    return tmp_path / "packed", plain


def test_experts_in_mxfp4_give_the_logits_of_their_values(packed: tuple[Path, Path]) -> None:
    folder, plain = packed
    assert torch.equal(logits(folder), logits(plain))
    half = logits(folder, dtype=torch.bfloat16)
    assert torch.equal(half, logits(plain, dtype=torch.bfloat16))


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("scales", lambda t: t[..., :1], "_blocks, .*_scales in .* has the shape"),
        ("blocks", lambda t: t[:, :-1], "_blocks, .*_scales in .* has the shape"),
        ("scales", lambda t: t.int(), "_scales in .* is stored as int32"),
        ("scales", None, "lacks 1 .*down_proj"),
    ],
)
def test_what_is_wrong_with_packed_experts_is_told(
    packed: tuple[Path, Path], kind: str, change: Any, message: str
) -> None:
    folder, _ = packed
    tensors = load_file(folder / SINGLE)
    name = f"model.layers.0.mlp.experts.down_proj_{kind}"
    old = tensors.pop(name)
    if change is not None:
        tensors[name] = change(old).contiguous()
    save_file(tensors, folder / SINGLE)
    with pytest.raises(ModelError, match=message):
        load(folder)
