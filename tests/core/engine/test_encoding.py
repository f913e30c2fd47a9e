"""Vectors and scores of prompts are transformers', however prompts are batched and cut."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from inarch.config import EngineConfig
from inarch.engine.engine import Engine
from inarch.errors import InvalidRequestError

from ..models.oracle import randomize
from ..models.zoo.encoders import CLASSIFIERS, EMBEDDERS
from .conftest import save_tokenizer

TOLERANCE = 3e-4
LENGTHS = (3, 70, 1, 17, 40, 64, 5)
POOLINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "cls": lambda h: h[0],
    "lasttoken": lambda h: h[-1],
    "mean": lambda h: h.mean(0),
    "mean_sqrt_len_tokens": lambda h: h.sum(0) / np.sqrt(len(h)),
    "weightedmean": lambda h: np.average(h, axis=0, weights=np.arange(len(h)) + 1),
    "max": lambda h: h.max(0),
}


def prompts(lengths: tuple[int, ...] = LENGTHS) -> list[list[int]]:
    return [random.Random(n).choices(range(3, 101), k=n) for n in lengths]


def save(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    torch.manual_seed(7)
    randomize(model)
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return model.eval()


def engine(folder: Path, **options: object) -> Engine:
    options = {"backend": "reference", "kv_tokens": 2048, "max_running_requests": 8} | options
    return Engine(EngineConfig(model=str(folder), dtype="float32", **options))  # type: ignore[arg-type]


@torch.inference_mode()
def hidden(model: PreTrainedModel, ids: list[int]) -> np.ndarray:
    return model(torch.tensor([ids])).last_hidden_state[0].numpy()


@torch.inference_mode()
def logits(model: PreTrainedModel, ids: list[int]) -> np.ndarray:
    return model(torch.tensor([ids])).logits[0].numpy()


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)


def write_modules(folder: Path, mode: str, *, normalize: bool) -> None:
    kinds = ["Transformer", "Pooling", *(["Normalize"] if normalize else [])]
    listed = [
        {"idx": i, "path": f"{i}_{kind}" if i else "", "type": f"sentence_transformers.{kind}"}
        for i, kind in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(
        json.dumps({"embedding_dimension": 64, "pooling_mode": mode})
    )


@pytest.mark.parametrize("name", EMBEDDERS)
def test_embeddings_in_batches_and_chunks(name: str, tmp_path: Path) -> None:
    model = save(EMBEDDERS[name].model(), tmp_path)
    first = "bert" in name
    with engine(tmp_path, max_step_tokens=72) as served:
        for ids, found in zip(prompts(), served.encode(prompts()), strict=True):
            expected = hidden(model, ids)
            assert_close(found.vector, unit(expected[0] if first else expected[-1]))
        assert served.info.head.labels == ()


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_scores_of_labels(name: str, tmp_path: Path) -> None:
    model = save(CLASSIFIERS[name].model(), tmp_path)
    with engine(tmp_path, max_step_tokens=72) as served:
        found = served.encode(prompts())
        for ids, one in zip(prompts(), found, strict=True):
            assert_close(one.vector, logits(model, ids))
        assert len(served.info.head.labels) == model.config.num_labels


@pytest.mark.parametrize("mode", POOLINGS)
@pytest.mark.parametrize("name", ["qwen3", "bert"])
def test_every_pooling_over_several_steps(name: str, mode: str, tmp_path: Path) -> None:
    """A causal model's prompt of 70 tokens takes five steps of 16; an encoder's must not be cut."""
    model = save(EMBEDDERS[name].model(), tmp_path)
    write_modules(tmp_path, mode, normalize=False)
    with engine(tmp_path, max_step_tokens=16 if name == "qwen3" else 80) as served:
        for ids, found in zip(prompts(), served.encode(prompts()), strict=True):
            assert_close(found.vector, POOLINGS[mode](hidden(model, ids)))


def test_a_prompt_that_must_be_whole_is_refused_if_it_is_too_long(tmp_path: Path) -> None:
    save(EMBEDDERS["bert"].model(), tmp_path)
    with engine(tmp_path, max_step_tokens=16) as served:
        assert len(served.encode([[3] * 16])) == 1
        with pytest.raises(InvalidRequestError, match=r"has 17 tokens.*16.*--max-step-tokens|16"):
            served.encode([[3] * 17])
