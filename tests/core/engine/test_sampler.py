"""The sampler around its ops: what must hold whatever kernels a backend brings."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from inarch.engine.sampler import SampleInputs, Sampler
from inarch.hal.dispatch import Dispatcher
from inarch.hal.op import Kernel
from inarch.hal.ops import sampling as ops
from inarch.hal.reference.device import ReferenceDevice


def bias_in_place(logits: Tensor, *args: Tensor) -> Tensor:
    return logits.copy_(ops.add_bias(logits, *args))


def test_logprobs_are_those_of_the_model_where_a_kernel_writes_over_the_logits() -> None:
    dispatcher = Dispatcher([Kernel("add_bias", "in place", bias_in_place)])
    sampler = Sampler(4, 3, ReferenceDevice(), dispatcher)
    one, row = np.ones(1, dtype=np.int64), np.zeros(1, dtype=np.int64)
    arrays = {"sample_rows": row, "bias_rows": row, "bias_tokens": one}
    arrays["bias_values"] = np.full(1, 50, dtype=np.float32)
    inputs = SampleInputs(
        row, row, arrays, everyone=True, greedy=True, penalized=False, biased=True, logprobs=2
    )
    there = {name: torch.from_numpy(array) for name, array in arrays.items()}
    sampled = sampler.sample(torch.zeros(1, 3), inputs, there)
    assert sampled.tokens.wait().tolist() == [1], "as the bias asks"
    assert sampled.logprobs is not None
    np.testing.assert_allclose(sampled.logprobs[0].wait(), [-np.log(3)], rtol=1e-5)
