"""`inarch generate` prints what the engine generates, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from inarch import Engine, EngineConfig, SamplingParams

from .conftest import Run

PARAMS = SamplingParams(temperature=0.0, max_tokens=12)
OPTIONS = ["--load-format", "dummy", "--temperature", "0", "--max-tokens", "12"]


def generated(model: Path, prompt: str, add_special_tokens: bool = True) -> str:
    with Engine(EngineConfig(model=str(model), load_format="dummy")) as engine:
        ids = engine.tokenizer.encode(prompt, add_special_tokens)
        return engine.generate(ids, PARAMS)[0].text


def test_the_answer_alone_is_printed(run: Run, model: Path) -> None:
    ended = run("generate", str(model), "--raw", "--prompt", "Once", *OPTIONS)

    assert (ended.code, ended.out) == (0, generated(model, "Once") + "\n")


def test_a_prompt_can_come_from_standard_input(run: Run, model: Path) -> None:
    ended = run("generate", str(model), "--raw", "--prompt", "-", *OPTIONS, stdin="Twice\n")

    assert ended.out == generated(model, "Twice\n") + "\n"


def test_the_prompt_is_a_message_where_there_is_a_chat_template(run: Run, model: Path) -> None:
    ended = run("generate", str(model), "--prompt", "Hi", *OPTIONS)

    assert ended.out == generated(model, "u:Hi|a:", add_special_tokens=False) + "\n"


def test_the_answer_ends_before_a_stop_text(run: Run, model: Path) -> None:
    whole = generated(model, "Once")
    stop = whole[5:7]
    ended = run("generate", str(model), "--raw", "--prompt", "Once", "--stop", stop, *OPTIONS)

    assert ended.out == whole[: whole.index(stop)] + "\n"


def test_one_seed_gives_one_answer(run: Run, model: Path) -> None:
    def answer(seed: str) -> str:
        options = ["--load-format", "dummy", "--max-tokens", "12", "--seed", seed]
        return run("generate", str(model), "--prompt", "x", *options).out

    assert answer("1") == answer("1") != answer("2")


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["/no/such/model", "--prompt", "x"], 1, "/no/such/model"),
        (["--prompt", "x", "--temperature", "-1"], 2, "--temperature"),
        ([], 2, "--prompt"),
    ],
)
def test_a_mistake_is_told_on_standard_error(
    run: Run, arguments: list[str], code: int, reason: str
) -> None:
    ended = run("generate", *arguments)

    assert (ended.code, ended.out) == (code, "")
    assert reason in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize(
    ("options", "tokens"),
    [(["--raw"], len("<") + 300), ([], len("u:") + 300 + len("|a:"))],
    ids=["text after bos", "message in a template without bos"],
)
def test_a_prompt_that_is_too_long_is_told(
    run: Run, model: Path, options: list[str], tokens: int
) -> None:
    ended = run("generate", str(model), "--prompt", "x" * 300, *options, *OPTIONS)

    assert ended.code == 1
    assert f"{tokens} tokens" in ended.err
