"""Small random models that encode, in engines, and what transformers makes of the same prompts."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedModel

from inarch.config import EngineConfig
from inarch.engine.engine import Engine

from ..models.oracle import randomize
from .conftest import save_tokenizer

TOLERANCE = 3e-4
BACKEND = "reference"
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
    options = {"backend": BACKEND, "kv_tokens": 2048, "max_running_requests": 8} | options
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


def save_word_tokenizer(folder: Path, pair: str) -> Tokenizer:
    """Words w3 ... w100 are tokens; `pair`: how a pair is put together."""
    vocab = {"[CLS]": 0, "[UNK]": 1, "[SEP]": 2, **{f"w{i}": i for i in range(3, 101)}}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair=pair, special_tokens=[("[CLS]", 0), ("[SEP]", 2)]
    )
    tokenizer.add_special_tokens(["[CLS]", "[SEP]"])
    tokenizer.save(str(folder / "tokenizer.json"))
    return tokenizer
