"""What is particular to this backend. What every backend promises is in test_conformance.py."""

from __future__ import annotations

import pytest
import torch

from inarch import Engine, EngineConfig, SamplingParams
from inarch.errors import BackendError
from inarch.hal.ops.norm import rms_norm as reference
from inarch_acme.backend import AcmeBackend
from inarch_acme.kernels import MOST_FEATURES, rms_norm, supports_rms_norm

FACTS = {"dtype": torch.bfloat16, "weight_dtype": torch.bfloat16, "hidden": 64}


def test_the_probe_finds_the_device_that_opens():
    assert AcmeBackend().probe().devices
    assert "Acme" in AcmeBackend().open(0).info.name
    with pytest.raises(BackendError, match="number 1"):
        AcmeBackend().open(1)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"dtype": torch.float16}, "rows of torch.float16"),
        ({"weight_dtype": torch.float32}, "a weight of torch.float32"),
        ({"hidden": MOST_FEATURES + 1}, "more than 65536"),
    ],
)
def test_the_kernel_says_what_it_cannot_do(change, reason):
    assert supports_rms_norm(FACTS)
    assert reason in supports_rms_norm(FACTS | change).why


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_kernel_gives_what_the_reference_gives(dtype):
    x, weight = torch.randn(7, 64).to(dtype), torch.randn(64).to(dtype)
    tolerance = reference.tolerance[str(dtype).removeprefix("torch.")]
    expected = reference(x, weight, 1e-6).float()
    error = (rms_norm(x, weight, 1e-6).float() - expected).abs().max()
    assert error <= tolerance * expected.abs().max()


def test_the_bundled_model_answers_as_on_the_reference_and_by_our_kernel():
    prompt, params = "The capital of France is", SamplingParams(temperature=0, max_tokens=8)
    answers = []
    for backend in ("acme", "reference"):
        config = EngineConfig(backend=backend, dtype="float32", kv_tokens=1024)
        with Engine(config) as engine:
            answers.append(engine.generate(prompt, params)[0].text)
            kernels = {op.op: op.kernel for op in engine.info.ops}
        assert kernels["rms_norm"] == backend
    assert answers[0] == answers[1]
