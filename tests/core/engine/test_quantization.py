"""`--quantization`: what it saves, that it answers, and what is said where it cannot be had."""

from __future__ import annotations

import pytest
import torch

from inarch.config import EngineConfig
from inarch.engine.engine import Engine
from inarch.engine.preparation import quantization_scheme
from inarch.errors import ConfigError, UnsupportedError
from inarch.models.checkpoint import Checkpoint
from inarch.models.implementation import find_blueprint
from inarch.sampling import SamplingParams
from inarch_bundled_model.plugin import inarch_bundled_models

from .test_engine import Served, Start, random_prompt

TURN = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
GREEDY = SamplingParams(temperature=0, max_tokens=20)


@pytest.mark.parametrize("bits", ["int8", "int4"])
def test_the_bundled_model_still_knows_its_capitals(bits: str) -> None:
    config = EngineConfig(backend="reference", kv_tokens=512, quantization=bits)  # type: ignore[arg-type]
    with Engine(config) as engine:
        answer = engine.generate(TURN.format("What is the capital of France?"), GREEDY)[0]
        assert answer.text == "The capital of France is Paris."
        chosen = {op.op: op.bindings for op in engine.info.ops}
    assert "quantized_linear" in chosen
    assert "linear" not in chosen  # the tied head too


def test_each_width_is_an_arithmetic_of_its_own(start: Start) -> None:
    params = SamplingParams(temperature=0, max_tokens=1, logprobs=1)
    found = []
    for options in ({}, {"quantization": "int8"}, {"quantization": "int4"}):
        with start(**options) as engine:
            answer = engine.generate(random_prompt(40), params)[0]
            found.append(answer.logprobs[0].logprob)
    exact, eight, four = found
    assert 0 < abs(eight - exact) < 0.01
    assert abs(eight - exact) < abs(four - exact) < 2


@pytest.mark.parametrize("bits", ["none", "int4"])
def test_the_survey_counts_quantized_layers_and_the_copy_for_a_tied_head(bits: str) -> None:
    scheme = quantization_scheme(EngineConfig(quantization=bits))  # type: ignore[arg-type]
    checkpoint = Checkpoint(str(inarch_bundled_models()[0].path))
    survey = find_blueprint(checkpoint, (), quantization=scheme).survey(torch.float32)
    config = checkpoint.config
    embedding = config["vocab_size"] * config["hidden_size"]
    others = survey.parameters - embedding
    if bits == "none":
        assert survey.weight_bytes == 4 * survey.parameters
    else:
        small = (embedding + others) * 4.5 / 8
        assert survey.weight_bytes == pytest.approx(4 * embedding + small, rel=0.02)


@pytest.mark.parametrize("name", ["qwen3-moe", "gpt-oss"])
def test_experts_are_quantized_and_their_router_is_not(start: Start, name: str) -> None:
    params = SamplingParams(temperature=0, max_tokens=1, logprobs=1)
    found = []
    for bits in ("none", "int8", "int4"):
        with start(name, quantization=bits) as engine:
            answer = engine.generate(random_prompt(40), params)[0]
            found.append(answer.logprobs[0].logprob)
            chosen = {op.op: op for op in engine.info.ops}
    assert {"quantized_linear", "quantized_experts", "quantized_grouped_linear"} <= chosen.keys()
    assert chosen["linear"].bindings == 1  # the router's: of one shape in all layers
    exact, eight, four = found
    assert 0 < abs(eight - exact) < abs(four - exact)


def test_the_survey_counts_quantized_experts(served: Served) -> None:
    scheme = quantization_scheme(EngineConfig(quantization="int4"))
    checkpoint = Checkpoint(str(served("mixtral").folder))
    plain, small = (
        find_blueprint(checkpoint, (), quantization=how).survey(torch.float32).weight_bytes
        for how in (None, scheme)
    )
    config = checkpoint.config
    experts = config["num_hidden_layers"] * config["num_local_experts"] * 3
    elements = experts * config["hidden_size"] * config["intermediate_size"]
    assert plain - small > elements * (4 - 4.5 / 8)


def test_transformers_code_is_refused_with_the_reason(start: Start) -> None:
    with pytest.raises(UnsupportedError, match="transformers' own code"):
        start("llama", quantization="int8", model_impl="transformers")


def test_a_group_of_another_size_is_refused() -> None:
    with pytest.raises(ConfigError, match="--quantization-group: 48 is not one of 32, 64, 128"):
        EngineConfig(quantization="int4", quantization_group=48)
