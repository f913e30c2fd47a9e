"""The whole engine on the fake accelerator: the same answers as on the CPU, and no rule broken."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from inarch.config import EngineConfig
from inarch.engine.engine import Engine
from inarch.sampling import SamplingParams

from ..models.oracle import SMALL, make
from .conftest import save_tokenizer

FAKE = Path(__file__).parents[2] / "fake_accelerator"

GREEDY = SamplingParams(temperature=0, max_tokens=40, ignore_eos=True)
EVERYTHING = SamplingParams(
    temperature=0.9,
    top_k=20,
    top_p=0.9,
    min_p=0.01,
    seed=4,
    max_tokens=20,
    min_tokens=5,
    repetition_penalty=1.2,
    presence_penalty=0.3,
    logprobs=3,
    logit_bias={3: 2.0},
)


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FAKE))
    monkeypatch.syspath_prepend(str(FAKE / "installed"))


def prompts(*lengths: int) -> list[list[int]]:
    vocabulary = range(int(SMALL["vocab_size"]))
    return [random.Random(length).choices(vocabulary, k=length) for length in lengths]


def answers(
    folder: Path, backend: str, batches: list[list[list[int]]], **options: object
) -> list[list[tuple[int, ...]]]:
    """Token ids of every prompt, batch after batch, greedy and then with everything on."""
    options = {"kv_tokens": 2048, "max_running_requests": 8, "page_size": 128} | options
    config = EngineConfig(model=str(folder), backend=backend, **options)  # type: ignore[arg-type]
    with Engine(config) as engine:
        return [
            [tuple(answer.token_ids) for answer in engine.generate(batch, params)]
            for params in (GREEDY, EVERYTHING)
            for batch in batches
        ]


def assert_same_as_the_reference(
    folder: Path, batches: list[list[list[int]]], **options: object
) -> None:
    save_tokenizer(folder)
    expected = answers(folder, "reference", batches, **options)
    assert answers(folder, "fake", batches, **options) == expected


@pytest.mark.parametrize("family", ["llama", "mistral-window", "qwen2-windows", "qwen3"])
def test_mixed_batches_and_odd_chunks_give_the_answers_of_the_cpu(
    family: str, tmp_path: Path
) -> None:
    make(family, tmp_path)
    assert_same_as_the_reference(tmp_path, [prompts(1, 16, 17, 75, 200)], max_step_tokens=37)


def test_a_cached_prefix_gives_the_answers_of_the_cpu(tmp_path: Path) -> None:
    make("llama", tmp_path)
    (shared,) = prompts(150)
    batches = [[shared], [shared + tail for tail in prompts(1, 5, 130)]]
    assert_same_as_the_reference(tmp_path, batches)


def test_retraction_gives_the_answers_of_the_cpu(tmp_path: Path) -> None:
    """Four sequences that grow past a page border, and pages for three of them."""
    make("llama", tmp_path)
    assert_same_as_the_reference(tmp_path, [prompts(117, 118, 119, 120)], kv_tokens=6 * 128)


def test_decodes_are_replayed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from inarch_fake.device import FakeDevice
    from inarch_fake.executor import FakeExecutor

    make("llama", tmp_path)
    save_tokenizer(tmp_path)
    executor = FakeExecutor()
    monkeypatch.setattr(FakeDevice, "executor", lambda self: executor)
    answers(tmp_path, "fake", [prompts(5, 6, 7)])
    assert executor.replays >= 35


def test_memory_is_measured_when_no_size_is_given(tmp_path: Path) -> None:
    make("llama", tmp_path)
    save_tokenizer(tmp_path)
    config = EngineConfig(model=str(tmp_path), backend="fake", max_running_requests=4)
    with Engine(config) as engine:
        assert engine.info.memory["activations"] > 0
        assert engine.info.kv_tokens >= engine.info.context_length
