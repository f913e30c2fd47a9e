"""`--kv-dtype`: what it saves, what it costs in accuracy, and what is said where it cannot be had."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from inarch.config import EngineConfig
from inarch.engine.engine import Engine
from inarch.errors import ConfigError
from inarch.sampling import SamplingParams

from .test_engine import GREEDY, Start, random_prompt

FAKE = Path(__file__).parents[2] / "fake_accelerator"
QUESTIONS = [
    "What is the capital of France?",
    "345+678",
    "What is another name for the Netherlands?",
    "List the days of the week.",
    "How many letters are in banana?",
    "Which continent is Kenya in?",
]


@pytest.fixture
def ask() -> Callable[..., list[str]]:
    """Greedy answers of the bundled model."""

    def ask(**options: str) -> list[str]:
        turn = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
        chats = [turn.format(question) for question in QUESTIONS]
        params = SamplingParams(temperature=0, max_tokens=60)
        with Engine(EngineConfig(backend="reference", kv_tokens=2048, **options)) as engine:  # type: ignore[arg-type]
            return [answer.text for answer in engine.generate(chats, params)]

    return ask


def test_fp8_pages_answer_as_wide_ones_do(ask: Callable[..., list[str]]) -> None:
    wide = ask()
    assert wide[0] == "The capital of France is Paris."
    assert ask(kv_dtype="fp8") == wide


def test_fp8_is_another_arithmetic(start: Start) -> None:
    """Else nothing above tells whether it was used."""
    params = SamplingParams(temperature=0, max_tokens=1, logprobs=1)
    found = []
    for kv_dtype in ("auto", "fp8"):
        with start(kv_dtype=kv_dtype) as engine:
            answer = engine.generate(random_prompt(40), params)[0]
            found.append(answer.logprobs[0].logprob)
    assert found[0] != found[1]
    assert found[0] == pytest.approx(found[1], abs=0.1)


def test_fp8_takes_a_quarter_of_the_memory_of_float32_and_says_so(start: Start) -> None:
    with start() as wide, start(kv_dtype="fp8") as narrow:
        assert (wide.info.kv_dtype, narrow.info.kv_dtype) == ("float32", "float8_e4m3fn")
        assert wide.info.dtype == narrow.info.dtype == "float32"
        assert wide.info.kv_tokens == narrow.info.kv_tokens
        assert wide.info.memory["kv"] == 4 * narrow.info.memory["kv"]


def test_a_cached_prefix_and_odd_chunks_change_no_token_over_fp8(start: Start) -> None:
    prompts = [random_prompt(100) + random_prompt(length, length) for length in (1, 30)]
    with start(kv_dtype="fp8", prefix_cache=False) as engine:
        expected = [answer.token_ids for answer in engine.generate(prompts, GREEDY)]
    with start(kv_dtype="fp8", max_step_tokens=13) as engine:
        engine.generate(prompts[0], GREEDY)
        answers = engine.generate(prompts, GREEDY)
    assert all(answer.cached_tokens >= 96 for answer in answers)
    assert [answer.token_ids for answer in answers] == expected


def test_a_device_without_fp8_pages_refuses_with_the_cure(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(FAKE)
    monkeypatch.syspath_prepend(FAKE / "installed")  # its metadata
    with pytest.raises(
        ConfigError,
        match=r"--kv-dtype fp8: Fake 1 keeps K and V in float32, not in float8_e4m3fn: "
        r"this backend has no pages for it; leave the option out",
    ):
        start(backend="fake", kv_dtype="fp8")


def test_an_unknown_dtype_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="--kv-dtype: 'int3' is not one of auto, fp8"):
        EngineConfig(kv_dtype="int3")  # type: ignore[arg-type]
