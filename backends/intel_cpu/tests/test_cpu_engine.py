"""The whole engine on this backend: the same greedy tokens as the reference backend gives."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from inarch.config import EngineConfig
from inarch.engine.engine import Engine
from inarch.sampling import SamplingParams

TURN = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
QUESTIONS = ["What is the capital of France?", "Tell me a story about a dog.", "What is 3 + 4?"]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The entry point, as an installer would make it of the package's description."""
    info = tmp_path / "inarch_intel_cpu-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: inarch-intel-cpu\nVersion: 0.1.0\n"
    )
    (info / "entry_points.txt").write_text("[inarch]\nintel_cpu = inarch_intel_cpu.plugin\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))


def answers(backend: str) -> tuple[list[list[int]], set[str]]:
    """The tokens of prompts that share a prefix and come in chunks, twice; what served them."""
    config = EngineConfig(
        backend=backend, dtype="float32", kv_tokens=2048, max_step_tokens=48, max_running_requests=4
    )
    prompts = [TURN.format(question) for question in QUESTIONS]
    greedy = SamplingParams(temperature=0, max_tokens=24)
    with Engine(config) as engine:
        found = [each.token_ids for _ in range(2) for each in engine.generate(prompts, greedy)]
        return found, {op.kernel for op in engine.info.ops}


def test_greedy_answers_are_those_of_the_reference_backend(installed: None) -> None:
    found, kernels = answers("intel_cpu")
    assert "reference" not in kernels
    assert found == answers("reference")[0]
