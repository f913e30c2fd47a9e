"""Small models that are no plain Llamas, through the whole engine: the reference's tokens."""

from __future__ import annotations

import random
import statistics

import pytest

from inarch.config import EngineConfig
from inarch.conformance.models import SMALL, save
from inarch.engine.engine import Engine
from inarch.sampling import SamplingParams

GREEDY = SamplingParams(temperature=0, max_tokens=24, ignore_eos=True)
ONE = SamplingParams(temperature=0, max_tokens=1, logprobs=1, ignore_eos=True)
OWN = {
    "experts": {"experts", "route"},
    "latent": {"experts", "route", "latent_attention"},
    "recurrent": {"experts", "route", "causal_conv", "gated_delta_rule", "gated_rms_norm"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of a model by name, made once."""
    made = {}

    def of(name):
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            save(name, made[name])
        return str(made[name])

    return of


def prompt(length):
    return random.Random(length).choices(range(SMALL["vocab_size"]), k=length)


def ask(model, params, **options):
    """Prompts in odd chunks beside decodes, then what they share from the cache."""
    prompts = [prompt(length) for length in (1, 17, 75)]
    prompts.append([*prompts[-1][:70], 5, 6, 7])
    options = {"backend": "intel_cpu", "dtype": "float32", "kv_tokens": 2048} | options
    with Engine(EngineConfig(model=model, max_step_tokens=29, **options)) as engine:
        answers = [*engine.generate(prompts, params), *engine.generate(prompts, params)]
        return answers, {op.op: op.kernel for op in engine.info.ops}


@pytest.mark.parametrize("name", list(OWN))
def test_answers_are_those_of_the_reference_and_no_op_is(installed, folder, name):
    answers, ops = ask(folder(name), GREEDY)
    assert set(ops.values()).isdisjoint({"reference", "parts"}), ops
    assert ops.keys() >= OWN[name]
    wanted, _ = ask(folder(name), GREEDY, backend="reference")
    assert [a.token_ids for a in answers] == [a.token_ids for a in wanted]


@pytest.mark.parametrize("quantization", ["int8", "int4"])
@pytest.mark.parametrize("name", ["experts", "recurrent"])
def test_quantized_experts_are_multiplied_by_our_kernels(installed, folder, name, quantization):
    answers, ops = ask(folder(name), ONE, quantization=quantization)
    assert ops["quantized_experts"] == ops["quantized_linear"] == ops["linear"]
    assert set(ops.values()).isdisjoint({"reference", "parts"}), ops
    wanted, _ = ask(folder(name), ONE, quantization=quantization, backend="reference")
    # Our kernels round activations to 8 bits, the reference does not; a router may then choose otherwise.
    pairs = [
        (a.logprobs[0].logprob, b.logprobs[0].logprob) for a, b in zip(answers, wanted, strict=True)
    ]
    assert statistics.median(abs(a - b) for a, b in pairs) < 0.2, pairs


def test_latents_in_few_bits_and_in_bfloat16_still_answer(installed, folder):
    for options in ({"kv_dtype": "fp8"}, {"dtype": "bfloat16"}, {"quantization": "int8"}):
        answers, ops = ask(folder("latent"), GREEDY, **options)
        assert ops["latent_attention"] != "reference"
        assert all(len(answer.token_ids) == 24 for answer in answers)
