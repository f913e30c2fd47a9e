"""The sampler around its ops: what must hold whatever kernels a backend brings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from inarch.engine.sampler import SampleInputs, Sampler, TokenMask
from inarch.hal.dispatch import Dispatcher
from inarch.hal.op import Kernel
from inarch.hal.ops import sampling as ops
from inarch.hal.reference.device import ReferenceDevice


def bias_in_place(logits: Tensor, *args: Tensor) -> Tensor:
    return logits.copy_(ops.add_bias(logits, *args))


def mask_in_place(logits: Tensor, *args: Tensor) -> Tensor:
    return logits.copy_(ops.apply_token_mask(logits, *args))


@pytest.mark.parametrize("how", ["bias", "mask"])
def test_logprobs_are_those_of_the_model_where_a_kernel_writes_over_the_logits(how: str) -> None:
    kernels = {"add_bias": bias_in_place, "apply_token_mask": mask_in_place}
    dispatcher = Dispatcher([Kernel(op, "in place", run) for op, run in kernels.items()])
    sampler = Sampler(4, 3, ReferenceDevice(), dispatcher)
    one, row = np.ones(1, dtype=np.int64), np.zeros(1, dtype=np.int64)
    arrays = {"sample_rows": row, "bias_rows": row, "bias_tokens": one}
    arrays["bias_values"] = np.full(1, 50, dtype=np.float32)
    inputs = SampleInputs(
        row, row, arrays, everyone=True, greedy=True, penalized=False, biased=how == "bias",
        constrained=np.empty(0, np.int64), logprobs=2,
    )  # fmt: skip
    there = {name: torch.from_numpy(array) for name, array in arrays.items()}
    mask = TokenMask(np.array([[0b010]], dtype=np.int32), row) if how == "mask" else None
    sampled = sampler.sample(torch.zeros(1, 3), inputs, there, mask)
    assert sampled.tokens.wait().tolist() == [1], "as the bias or the mask asks"
    assert sampled.logprobs is not None
    np.testing.assert_allclose(sampled.logprobs[0].wait(), [-np.log(3)], rtol=1e-5)


# Kernels that need next to no memory of their own, as good ones do.
LEAN = {
    "greedy": lambda logits: logits.argmax(-1),
    "sample": lambda logits, *others: logits.argmax(-1),
    "penalize": lambda logits, *others: logits.mul_(1),
    "add_bias": lambda logits, *others: logits.add_(0),
    "logprobs": lambda logits, tokens, top: (logits[:, 0], logits[:, :top], tokens[:, None]),
}


def test_a_rehearsal_takes_the_memory_of_any_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "fake_accelerator")
    from inarch_fake.device import FakeDevice
    from inarch_fake.memory import Usage

    device = FakeDevice()
    sampler = Sampler(
        8, 1000, device, Dispatcher([Kernel(name, "lean", run) for name, run in LEAN.items()])
    )
    logits = device.upload(np.zeros((8, 1000), dtype=np.float32))

    def peak(work: Callable[[], object]) -> int:
        device.reset_peak_memory()
        before = Usage.used
        work()
        return Usage.peak - before

    rows = np.arange(8)
    arrays = {"sample_sequences": rows, "sample_rows": rows}
    arrays |= {"bias_rows": rows, "bias_tokens": rows, "bias_values": np.zeros(8, np.float32)}
    inputs = SampleInputs(
        rows,
        rows,
        arrays,
        everyone=False,
        greedy=True,
        penalized=False,
        biased=True,
        constrained=np.empty(0, np.int64),
        logprobs=1,
    )
    there = {name: device.upload(array) for name, array in arrays.items()}
    step = peak(lambda: sampler.sample(logits, inputs, there))
    assert 2 * 8 * 1000 * 4 <= step <= peak(lambda: sampler.rehearse(logits))
