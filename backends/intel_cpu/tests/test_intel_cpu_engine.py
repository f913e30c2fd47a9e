"""The whole engine on this backend: chosen by itself, and with the answers of the reference."""

from __future__ import annotations

import pytest
import torch

from inarch.config import EngineConfig
from inarch.engine.engine import Engine
from inarch.sampling import SamplingParams
from inarch_intel_cpu.cpuinfo import FORCE
from inarch_intel_cpu.dtypes import preferred

TURN = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
QUESTIONS = ["What is the capital of France?", "345+678", "List the days of the week."]
GREEDY = SamplingParams(temperature=0, max_tokens=24)


def ask(**options: str) -> tuple[list[str], dict[str, str]]:
    chats = [TURN.format(question) for question in QUESTIONS]
    with Engine(EngineConfig(kv_tokens=1024, **options)) as engine:
        texts = [answer.text for answer in engine.generate(chats, GREEDY)]
        return texts, {op.op: op.kernel for op in engine.info.ops}


@pytest.mark.parametrize("quantization", ["none", "int8", "int4"])
def test_answers_are_those_of_the_reference(installed, monkeypatch, native, quantization):
    monkeypatch.setenv(FORCE, native.variant)
    texts, ops = ask(quantization=quantization)
    assert ops["linear" if quantization == "none" else "quantized_linear"] == native.variant
    dtype = str(preferred(torch.bfloat16, native.variant)[0]).removeprefix("torch.")
    assert texts == ask(backend="reference", dtype=dtype, quantization=quantization)[0]
    assert texts[0] == "The capital of France is Paris."


def test_prompts_in_chunks_and_shared_prefixes_are_answered_alike(installed):
    options = {"dtype": "float32", "max_step_tokens": 48, "kv_tokens": 2048}
    chats = [TURN.format(f"Tell me a story about a {animal}.") for animal in ("dog", "fox", "cat")]

    def twice(backend):
        with Engine(EngineConfig(backend=backend, **options)) as engine:
            found = [engine.generate(chats, GREEDY) for _ in range(2)]
            kernels = {op.kernel for op in engine.info.ops}
            return [[each.token_ids for each in answers] for answers in found], kernels

    found, kernels = twice("intel_cpu")
    assert "reference" not in kernels
    assert found == twice("reference")[0]
