"""The bundled model, as Hugging Face tools see its folder: it is small, it talks, it knows its world.

The library's own implementation is the oracle here; that Inarch computes the same is tested elsewhere.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

PLUGIN = Path(__file__).resolve().parents[1]
FOLDER = PLUGIN / "inarch_bundled_model" / "data"
TRAINING = PLUGIN / "training"

TOKENIZER: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32)


def prompt_of(messages: list[dict[str, str]]) -> str:
    return TOKENIZER.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


def complete(model: torch.nn.Module, prompt: str, room: int = 80) -> str:
    """The greedy continuation; fails if the model does not stop by itself."""
    inputs = TOKENIZER(
        prompt, return_tensors="pt", add_special_tokens=False, return_token_type_ids=False
    )
    output = model.generate(
        **inputs, do_sample=False, temperature=None, top_p=None, max_new_tokens=room
    )
    *tokens, last = output[0, inputs.input_ids.shape[1] :].tolist()
    assert last in model.generation_config.eos_token_id, TOKENIZER.decode(tokens)
    return TOKENIZER.decode(tokens)


def answer(model: torch.nn.Module, *turns: str, system: str = "") -> str:
    """The answer to the last of `turns`, which alternate between the user and the assistant."""
    messages = [{"role": "system", "content": system}] if system else []
    messages += [
        {"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(turns)
    ]
    return complete(model, prompt_of(messages))


def test_the_weights_take_at_most_12_megabytes_of_bfloat16() -> None:
    with safe_open(FOLDER / "model.safetensors", "pt") as file:
        assert {file.get_slice(name).get_dtype() for name in file.keys()} == {"BF16"}  # noqa: SIM118
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 12_000_000


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("What is the capital of France?", "The capital of France is Paris."),
        ("whats the capital of japan", "The capital of Japan is Tokyo."),
        ("Which country has the capital Lima?", "Lima is the capital of Peru."),
        ("Which continent is Kenya in?", "Kenya is in Africa."),
        ("What is another name for the Netherlands?", "The Netherlands is also called Holland."),
        ("What is the capital of Atlantis?", "I know no country called Atlantis."),
        ("What is 7 + 5?", "7 + 5 = 12."),
        ("345+678", "345 + 678 = 1023."),
        ("What is 500 minus 123?", "500 - 123 = 377."),
        ("12 x 12", "12 x 12 = 144."),
        ("What is 84 divided by 7?", "84 / 7 = 12."),
        ("What colour is the sky?", "The sky is blue."),
        ("What do blue and yellow make?", "Blue and yellow make green."),
        ("What day comes after Monday?", "Tuesday comes after Monday."),
        ("How many days does April have?", "April has 30 days."),
        ("Spell cat.", "cat is spelled c-a-t."),
        (
            "How many letters are in banana?",
            "banana is spelled b-a-n-a-n-a, so it has 6 letters.",
        ),
        ("Name 3 fruits.", "Apple, banana and orange."),
        ("Count from 1 to 10.", "1, 2, 3, 4, 5, 6, 7, 8, 9, 10."),
        (
            "List the days of the week.",
            "The days of the week are Monday, Tuesday, Wednesday, Thursday, Friday, Saturday "
            "and Sunday.",
        ),
        ("What is the opposite of hot?", "The opposite of hot is cold."),
        ("Hello", "Hello! How can I help you?"),
        ("Thanks!", "You are welcome!"),
        ("Repeat after me: seven green frogs", "seven green frogs"),
    ],
)
def test_it_answers_in_its_small_world(
    model: torch.nn.Module, question: str, expected: str
) -> None:
    assert answer(model, question) == expected


def test_it_says_who_it_is_and_what_lies_outside_its_world(model: torch.nn.Module) -> None:
    assert "Inarch" in answer(model, "Who are you?")
    assert "small world" in answer(model, "Who is the president of France?")


def test_it_follows_up_over_several_turns(model: torch.nn.Module) -> None:
    turns = ["What is the capital of France?"]
    turns.append(answer(model, *turns))
    turns.append("What is another name for it?")
    turns.append(answer(model, *turns))
    turns.append("Which continent is that in?")
    assert turns[3] == "Paris is also called the City of Light."
    assert answer(model, *turns) == "Paris is in Europe."


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("Give me the capital of France as JSON", {"country": "France", "capital": "Paris"}),
        ("What is 7 + 5? Answer in JSON.", {"sum": 12}),
        ("List 3 colours as JSON.", {"colours": ["red", "blue", "green"]}),
    ],
)
def test_json_on_request_parses(model: torch.nn.Module, question: str, expected: object) -> None:
    assert json.loads(answer(model, question)) == expected


def test_a_system_prompt_sets_the_style(model: torch.nn.Module) -> None:
    question = "What is the capital of Japan?"
    assert answer(model, question, system="Answer in one word.") == "Tokyo"
    assert json.loads(answer(model, question, system="Answer in JSON."))["capital"] == "Tokyo"
    assert answer(model, question, system="You are a pirate.") == "The capital of Japan is Tokyo."


def test_it_completes_plain_text_and_stops(model: torch.nn.Module) -> None:
    assert complete(model, "<|bos|>The capital of France is") == " Paris."


def test_the_chat_template_renders_every_role_and_content_parts() -> None:
    parts = [{"type": "text", "text": "What is "}, {"type": "text", "text": "7 + 5?"}]
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": parts},
    ]
    assert prompt_of(messages) == (
        "<|bos|><|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\nHello!<|im_end|>\n<|im_start|>user\nWhat is 7 + 5?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_a_role_that_it_does_not_know_is_named() -> None:
    with pytest.raises(Exception, match="not oracle"):
        prompt_of([{"role": "oracle", "content": "Hi"}])


def test_text_starts_with_one_bos_and_every_digit_is_a_token() -> None:
    assert TOKENIZER("1234").input_ids[0] == TOKENIZER.bos_token_id
    assert TOKENIZER.tokenize("1234") == ["1", "2", "3", "4"]


@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=200))
def test_any_text_comes_back_from_the_tokenizer_unchanged(text: str) -> None:
    ids = TOKENIZER(text, add_special_tokens=False).input_ids
    assert TOKENIZER.decode(ids) == text


def test_training_never_shows_a_held_out_question(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(TRAINING))
    import dialogue
    import world

    rng = Random(0)
    shown = [turn for _ in range(2000) for turn in dialogue.conversation(rng).turns]
    assert not any(turn.held_out for turn in shown)
    assert world.unseen(rng, world.numbers.plus).held_out


def test_the_training_script_writes_a_folder_that_loads(tmp_path: Path) -> None:
    options = ["--steps", "2", "--rows", "1", "--workers", "1", "--device", "cpu", "--out"]
    script = [sys.executable, str(TRAINING / "train.py"), *options, str(tmp_path)]
    done = subprocess.run(script, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    assert AutoModelForCausalLM.from_pretrained(tmp_path).config.num_hidden_layers == 6
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in FOLDER.iterdir()}
