"""Vectors and scores of prompts are transformers', however prompts are batched and cut."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from inarch.errors import InvalidRequestError
from inarch.sampling import SamplingParams, encoding

from ..models.oracle import randomize
from ..models.zoo import MODELS
from ..models.zoo.encoders import CLASSIFIERS, EMBEDDERS
from .conftest import save_tokenizer
from .small_encoders import (
    LENGTHS,
    POOLINGS,
    assert_close,
    engine,
    hidden,
    logits,
    prompts,
    save,
    unit,
    write_modules,
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


def test_the_budget_of_a_step_is_an_encoders_context_at_least(tmp_path: Path) -> None:
    example = EMBEDDERS["modernbert"]
    longer = dataclasses.replace(
        example, changes={**example.changes, "max_position_embeddings": 800}
    )
    save(longer.model(), tmp_path)
    with engine(tmp_path, backend="reference") as served:
        assert served.info.max_request_tokens == 800
        assert served.encode([[3] * 800])[0].prompt_tokens == 800


def test_a_prompt_that_must_be_whole_is_refused_if_it_is_too_long(tmp_path: Path) -> None:
    save(EMBEDDERS["bert"].model(), tmp_path)
    with engine(tmp_path, max_step_tokens=16) as served:
        assert len(served.encode([[3] * 16])) == 1
        with pytest.raises(InvalidRequestError, match=r"has 17 tokens.*16.*--max-step-tokens|16"):
            served.encode([[3] * 17])


def test_prompts_that_begin_alike_share_their_beginning(tmp_path: Path) -> None:
    """The last token needs no other hidden state than its own; a mean needs them all."""
    model = save(EMBEDDERS["qwen3"].model(), tmp_path)
    instruction, texts = prompts((64,))[0], prompts((5, 9))
    with engine(tmp_path) as served:
        found = [served.encode([instruction + text])[0] for text in texts]
    assert [one.cached_tokens for one in found] == [0, 64]
    assert_close(found[1].vector, unit(hidden(model, instruction + texts[1])[-1]))
    write_modules(tmp_path, "mean", normalize=False)
    with engine(tmp_path) as served:
        found = [served.encode([instruction + text])[0] for text in texts]
    assert [one.cached_tokens for one in found] == [0, 0]
    assert_close(found[1].vector, hidden(model, instruction + texts[1]).mean(0))


@pytest.mark.parametrize("each", [False, True])
def test_a_prompt_that_was_set_back_is_pooled_anew(each: bool, tmp_path: Path) -> None:
    """Prompts of 120 tokens in chunks of 16: one mean of each, or scores of each token."""
    example = CLASSIFIERS["qwen2-tokens"] if each else EMBEDDERS["qwen3"]
    model = save(example.model(), tmp_path)
    if not each:
        write_modules(tmp_path, "mean", normalize=False)
    given = [random.Random(n).choices(range(3, 101), k=120) for n in range(5)]
    found: dict[int, np.ndarray] = {}
    with engine(tmp_path, max_step_tokens=16) as served:
        for number, output in served.stream_batch(given, [encoding()] * 5):
            found[number] = output.vectors
            served._core.scheduler.retract_all()
        assert served.stats().retractions > 0
    for number, ids in enumerate(given):
        expected = logits(model, ids) if each else hidden(model, ids).mean(0)[None]
        assert_close(found[number], expected)


def test_a_language_model_answers_and_encodes_in_one_batch(tmp_path: Path) -> None:
    model = save(MODELS["qwen3"].model(), tmp_path)
    given = prompts((40, 17, 33, 5))
    greedy = SamplingParams(max_tokens=12, temperature=0.0, ignore_eos=True)
    with engine(tmp_path, max_step_tokens=24) as served:
        alone = [one.token_ids for one in served.generate(given[::2], greedy)]
        tokens: dict[int, tuple[int, ...]] = {0: (), 2: ()}
        for number, output in served.stream_batch(given, [greedy, encoding()] * 2):
            if output.vectors is None:
                tokens[number] += output.token_ids
            else:
                expected = hidden(model.model, given[number])[-1]
                assert_close(output.vectors[0], unit(expected))
    assert list(tokens.values()) == alone


def test_leaving_while_prompts_are_encoded_leaves_nothing_behind(tmp_path: Path) -> None:
    save(EMBEDDERS["qwen3"].model(), tmp_path)
    with engine(tmp_path, max_step_tokens=16) as served:
        stream = served.stream_batch(prompts(), [encoding()] * len(LENGTHS))
        next(stream)
        stream.close()
        assert served.encode(prompts((9,)))
        stats = served.stats()
        assert (stats.running, stats.waiting, stats.kv_pages_used) == (0, 0, 0)


def test_a_model_without_an_output_head_generates_nothing(tmp_path: Path) -> None:
    save(CLASSIFIERS["llama"].model(), tmp_path)
    with (
        engine(tmp_path) as served,
        pytest.raises(InvalidRequestError, match=r"generates no text: it gives scores"),
    ):
        served.generate([[3, 4]])


def test_the_whole_prompts_of_an_encoder_fill_steps_out_of_turn(tmp_path: Path) -> None:
    """70, 64 and 40 tokens do not fit a step of 72 together; the short ones go beside them."""
    save(EMBEDDERS["bert"].model(), tmp_path)
    with engine(tmp_path, max_step_tokens=72) as served:
        served.encode(prompts())
        assert served.stats().steps == 3


@pytest.mark.parametrize(
    ("suffix", "labels", "each"), [("RewardModel", 1, False), ("ProcessRewardModel", 2, True)]
)
def test_rewards_of_qwen2(suffix: str, labels: int, each: bool, tmp_path: Path) -> None:
    """Whose classes transformers lacks: two layers behind the body, with a ReLU between them."""
    body = EMBEDDERS["qwen2"].model()
    randomize(body)
    head = torch.nn.Sequential(
        torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, labels)
    )
    tensors = {f"model.{name}": tensor for name, tensor in body.state_dict().items()}
    tensors |= {f"score.{name}": tensor for name, tensor in head.state_dict().items()}
    save_file(tensors, tmp_path / "model.safetensors")
    config = body.config.to_dict() | {"architectures": [f"Qwen2For{suffix}"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_tokenizer(tmp_path)
    with engine(tmp_path, max_step_tokens=16) as served, torch.inference_mode():
        for ids, found in zip(prompts(), served.encode(prompts()), strict=True):
            expected = head(body(torch.tensor([ids])).last_hidden_state[0]).numpy()
            assert_close(found.vector, expected if each else expected[-1])
