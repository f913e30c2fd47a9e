"""A parameter is made of any part of a checkpoint's tensors, in whatever way the checkpoint has them."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from inarch.errors import ModelError
from inarch.models.checkpoint import SINGLE, Checkpoint
from inarch.models.parameters import Parameter
from inarch.models.sources import Expert, FirstOf, Names, Rows, Source, Transposed, choose_sources
from inarch.models.weights import Weights, check_tensors, from_checkpoint

MATRIX = torch.arange(48.0).view(12, 4)
VECTOR = torch.arange(12.0)
STACK = torch.arange(96.0).view(2, 4, 12)


def take(
    folder: Path, stored: dict[str, Tensor], names: Names, parameter: Parameter, name: str = "x"
) -> Tensor:
    """The canonical tensor that comes of a checkpoint with these tensors, in float32."""
    (folder / "config.json").write_text(json.dumps({}))
    save_file({key: tensor.contiguous() for key, tensor in stored.items()}, folder / SINGLE)
    checkpoint = Checkpoint(folder)
    chosen = choose_sources(names, checkpoint.names())
    check_tensors(checkpoint, chosen, {name: parameter})
    fill = from_checkpoint(checkpoint, chosen)
    cpu = torch.device("cpu")
    weights = Weights({name: parameter}, fill, cpu, torch.float32, lambda size: None)
    return weights.take(name)


def source(*views: object) -> Names:
    return {"x": (Source("a", views),)}  # type: ignore[arg-type]


def test_a_matrix_that_is_stored_transposed(tmp_path: Path) -> None:
    found = take(tmp_path, {"a": MATRIX}, source(Transposed()), Parameter((4,), 12))
    assert torch.equal(found, MATRIX.T)


@pytest.mark.parametrize("stored", [MATRIX, VECTOR], ids=["weight", "bias"])
def test_some_of_the_rows(tmp_path: Path, stored: Tensor) -> None:
    parameter = Parameter((5,), 4 if stored.dim() == 2 else None)
    found = take(tmp_path, {"a": stored}, source(Rows(3, 8)), parameter)
    assert torch.equal(found, stored[3:8])


@pytest.mark.parametrize("stored", [MATRIX, VECTOR], ids=["weight", "bias"])
def test_heads_that_keep_q_k_and_v_side_by_side(tmp_path: Path, stored: Tensor) -> None:
    """Two heads of q, k and v with two rows each, as in GPT-NeoX."""
    names = {"x": tuple(Source("a", (Rows(2 * i, 2 * i + 2, groups=2),)) for i in range(3))}
    parameter = Parameter((4, 4, 4), 4 if stored.dim() == 2 else None)
    order = [0, 1, 6, 7, 2, 3, 8, 9, 4, 5, 10, 11]
    assert torch.equal(take(tmp_path, {"a": stored}, names, parameter), stored[order])


def test_groups_of_unequal_parts(tmp_path: Path) -> None:
    """Two groups of four query rows, one of k and one of v, as in InternLM 2."""
    names = {"x": tuple(Source("a", (Rows(*part, groups=2),)) for part in [(0, 4), (4, 5), (5, 6)])}
    order = [0, 1, 2, 3, 6, 7, 8, 9, 4, 10, 5, 11]
    found = take(tmp_path, {"a": MATRIX}, names, Parameter((8, 2, 2), 4))
    assert torch.equal(found, MATRIX[order])


def test_stacked_experts(tmp_path: Path) -> None:
    names = {"x": tuple(Source("a", (Expert(i), Transposed())) for i in range(2))}
    found = take(tmp_path, {"a": STACK}, names, Parameter((12, 12), 4, stack=2))
    assert torch.equal(found, STACK.transpose(1, 2))


def test_a_whole_stack_at_once(tmp_path: Path) -> None:
    found = take(tmp_path, {"a": STACK}, source(), Parameter((4, 4), 12, stack=2))
    assert torch.equal(found, STACK)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_every_floating_point_dtype_and_mixtures_of_them(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    stored = {"a": MATRIX[:6].to(dtype), "b": MATRIX[6:]}
    assert torch.equal(take(tmp_path, stored, {"x": ("a", "b")}, Parameter((6, 6), 4)), MATRIX)


def test_an_offset_is_added(tmp_path: Path) -> None:
    found = take(tmp_path, {"a": VECTOR}, source(), Parameter((12,), offset=1.0))
    assert torch.equal(found, VECTOR + 1)


@pytest.mark.parametrize("stored", [{"a": MATRIX}, {"b": MATRIX[:6], "c": MATRIX[6:]}], ids=str)
def test_alternatives_of_which_a_checkpoint_has_one(
    tmp_path: Path, stored: dict[str, Tensor]
) -> None:
    names: Names = {"x": FirstOf(("b", "c"), ("a",))}
    assert torch.equal(take(tmp_path, stored, names, Parameter((6, 6), 4)), MATRIX)


def test_of_alternatives_that_are_all_missing_the_first_is_named(tmp_path: Path) -> None:
    names: Names = {"x": FirstOf(("b", "c"), ("a",))}
    with pytest.raises(ModelError, match=r"lacks 2 of the tensors .*: b, c\."):
        take(tmp_path, {"z": VECTOR}, names, Parameter((6, 6), 4))


@pytest.mark.parametrize("wrong", [Rows(3, 9), Rows(0, 2, groups=5), Transposed(), Expert(12)])
def test_a_part_that_does_not_fit_is_told_with_the_shape_that_is_stored(
    tmp_path: Path, wrong: object
) -> None:
    message = rf"tensor a .* shape \[12, 4\], but .* implies \[5, 4\], as {type(wrong).__name__}"
    with pytest.raises(ModelError, match=message):
        take(tmp_path, {"a": MATRIX}, source(wrong), Parameter((5,), 4))


@pytest.mark.parametrize(
    ("embedding", "layer", "head"),
    [
        ("model.embed.weight", "model.a", "lm_head.b"),
        ("embed.weight", "a", "lm_head.b"),
        ("language_model.model.embed.weight", "language_model.model.a", "language_model.lm_head.b"),
        ("model.language_model.embed.weight", "model.language_model.a", "lm_head.b"),
    ],
    ids=["plain", "backbone alone", "wrapped", "inside"],
)
def test_a_backbone_is_found_alone_and_inside_a_multimodal_model(
    embedding: str, layer: str, head: str
) -> None:
    names: Names = {
        "embedding.weight": ("model.embed.weight",),
        "x": ("model.a",),
        "head": ("lm_head.b",),
    }
    chosen = choose_sources(names, {embedding, layer, head})
    found = {parameter: sources[0].name for parameter, sources in chosen.items()}
    assert found == {"embedding.weight": embedding, "x": layer, "head": head}


def test_an_absent_bias_is_zero_and_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    parameter = Parameter((6, 6), default=0.0)
    with caplog.at_level(logging.WARNING):
        found = take(tmp_path, {"a": VECTOR[:6] + 1}, {"x": ("a", "b")}, parameter)
    assert found.tolist() == [1, 2, 3, 4, 5, 6, 0, 0, 0, 0, 0, 0]
    assert "1 tensors that config.json implies" in caplog.text
    assert caplog.text.rstrip().endswith(": b")
