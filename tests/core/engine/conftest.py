from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from inarch.config import EngineConfig
from inarch.engine.engine import Engine

from ..models.oracle import Saved, make
from ..models.zoo.example import SMALL


def save_tokenizer(folder: Path) -> None:
    """A byte for a token as far as the vocabulary goes; enough to turn any id into text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())[: int(SMALL["vocab_size"])]
    tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, [], unk_token="!"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({}))


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Saved]:
    """Small random models with a tokenizer, by their names in the oracle's table."""
    made: dict[str, Saved] = {}

    def get(name: str) -> Saved:
        if name not in made:
            made[name] = make(name, tmp_path_factory.mktemp(name))
            save_tokenizer(made[name].folder)
        return made[name]

    return get


@pytest.fixture(autouse=True, scope="module")
def forgotten() -> Iterator[None]:
    """Engines are cycles of few objects and much memory: Python sees no need to collect them."""
    yield
    gc.collect()


@pytest.fixture
def start(served: Callable[[str], Saved]) -> Callable[..., Engine]:
    """Starts an engine for a model of the oracle's table."""

    def start(name: str = "llama", **options: object) -> Engine:
        options = {"backend": "reference", "kv_tokens": 4096, "max_running_requests": 8} | options
        return Engine(EngineConfig(model=str(served(name).folder), **options))  # type: ignore[arg-type]

    return start
