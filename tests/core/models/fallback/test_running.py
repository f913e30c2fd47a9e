"""Transformers' own code over our pages gives the logits that it gives by itself."""

from __future__ import annotations

import json
import logging
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from inarch.errors import ModelError
from inarch.models.checkpoint import Checkpoint
from inarch.models.implementation import find_blueprint

from ..oracle import Saved
from ..zoo.foreign import FOREIGN
from .conftest import load

TOLERANCE = 3e-4  # absolute, on float32 logits

Foreign = Callable[[str], Saved]


def tokens(length: int, seed: int = 0) -> list[int]:
    return random.Random(f"{length} {seed}").choices(range(1, 101), k=length)


def greedy(saved: Saved, prompt: list[int], count: int) -> list[int]:
    """transformers' own, without its cache: one oracle for models with and without one."""
    known = list(prompt)
    for _ in range(count):
        known.append(int(saved.logits(known)[-1].argmax()))
    return known[len(prompt) :]


@pytest.mark.parametrize("name", FOREIGN)
def test_chunks_prefixes_and_neighbours_change_no_logit(foreign: Foreign, name: str) -> None:
    """Six sequences are prefilled in odd chunks and decoded, in batches of any mix."""
    saved = foreign(name)
    paged = load(saved.folder, page_tokens=4)
    prompts = {row: tokens(60, seed=row) for row in range(6)}
    expected = {row: saved.logits(prompt) for row, prompt in prompts.items()}
    ends, chance = dict.fromkeys(prompts, 0), random.Random(1)
    while unfinished := [row for row in prompts if ends[row] < 60]:
        chosen = chance.sample(unfinished, chance.randint(1, len(unfinished)))
        sizes = {row: chance.choice([1, 1, 2, 5, 33]) for row in chosen}
        chunks = {row: prompts[row][ends[row] : ends[row] + sizes[row]] for row in chosen}
        for row, logits in paged.step(chunks).items():
            ends[row] += len(chunks[row])
            wanted = expected[row][ends[row] - 1]
            torch.testing.assert_close(logits, wanted, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", FOREIGN)
def test_32_greedy_tokens(foreign: Foreign, name: str) -> None:
    saved, prompt = foreign(name), tokens(20)
    assert load(saved.folder).greedy(0, prompt, 32) == greedy(saved, prompt, 32)


def test_two_models_in_one_process_do_not_meet(foreign: Foreign) -> None:
    prompt, names = tokens(30), ("gemma2", "gpt2")
    running = {name: load(foreign(name).folder) for name in names}
    for start in (0, 10, 20):
        for name in names:
            found = running[name].step({0: prompt[start : start + 10]})[0]
            wanted = foreign(name).logits(prompt)[start + 9]
            torch.testing.assert_close(found, wanted, rtol=0, atol=TOLERANCE)


def test_a_model_without_a_family_runs_by_itself_and_says_so(
    foreign: Foreign, caplog: pytest.LogCaptureFixture
) -> None:
    saved, prompt = foreign("persimmon"), tokens(30)
    with caplog.at_level(logging.WARNING, "inarch.models"):
        logits = load(saved.folder, model_impl="auto").step({0: prompt})[0]
    torch.testing.assert_close(logits, saved.logits(prompt)[-1], rtol=0, atol=TOLERANCE)
    assert "no installed model family knows the architecture PersimmonForCausalLM" in caplog.text
    assert "transformers' own code runs it" in caplog.text


def test_a_family_goes_first(foreign: Foreign) -> None:
    checkpoint = Checkpoint(foreign("llama").folder)
    assert "the family llama" in find_blueprint(checkpoint, ()).survey(torch.float32).implementation
    asked = find_blueprint(checkpoint, (), model_impl="transformers").survey(torch.float32)
    assert "LlamaForCausalLM of transformers" in asked.implementation
    with pytest.raises(ModelError, match=r"PersimmonForCausalLM. Known are .*LlamaForCausalLM"):
        find_blueprint(Checkpoint(foreign("persimmon").folder), (), model_impl="inarch")


def test_random_weights_need_a_config_alone_and_are_the_same_each_time(
    foreign: Foreign, tmp_path: Path
) -> None:
    shutil.copy(foreign("stablelm").folder / "config.json", tmp_path)
    before = torch.random.get_rng_state()
    first, again = (load(tmp_path, dummy=True).step({0: tokens(9)})[0] for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_what_a_layer_asks_for_is_known_before_its_weights(foreign: Foreign) -> None:
    specs = {
        name: find_blueprint(
            Checkpoint(foreign(name).folder), (), model_impl="transformers"
        ).trace.specs  # type: ignore[attr-defined]
        for name in ("gemma2", "minicpm3", "granite-swa", "diffllama")
    }
    assert [spec.window for spec in specs["gemma2"]] == [9, None, 9]
    assert {spec.softcap for spec in specs["gemma2"]} == {50.0}
    assert {(spec.key_dim, spec.value_dim) for spec in specs["minicpm3"]} == {(16, 12)}
    assert all(spec.sinks for spec in specs["granite-swa"])
    assert len(specs["diffllama"]) == 2 * 3  # two calls in each of three layers


@pytest.mark.parametrize(
    ("rope", "most"),
    [
        ({"rope_type": "dynamic", "factor": 4.0}, 512),
        (
            {
                "rope_type": "longrope",
                "original_max_position_embeddings": 128,
                "short_factor": [1.0] * 8,
                "long_factor": [2.0] * 8,
            },
            128,
        ),
        ({"rope_type": "linear", "factor": 4.0}, 512),
    ],
)
def test_contexts_end_where_rotations_would_follow_the_longest_neighbour(
    foreign: Foreign, tmp_path: Path, rope: dict[str, object], most: int
) -> None:
    config = json.loads((foreign("llama").folder / "config.json").read_text())
    config["rope_parameters"] = {"rope_theta": 10000.0} | rope
    (tmp_path / "config.json").write_text(json.dumps(config))
    blueprint = find_blueprint(Checkpoint(tmp_path), (), model_impl="transformers", dummy=True)
    assert blueprint.context_length == most
