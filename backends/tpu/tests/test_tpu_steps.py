"""A step as one program a bucket: what it overwrites, how its weights lie on several chips."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

jax = pytest.importorskip("jax", reason="JAX is not installed: pip install -r ci/jax.txt")

from inarch.hal.attention import AttentionBatch, AttentionSpec  # noqa: E402
from inarch.hal.executor import StepInputs, StepShape  # noqa: E402
from inarch.hal.kv import KVHeads, KVSpec  # noqa: E402
from inarch.hal.linear import LinearSpec  # noqa: E402
from inarch_tpu.attention import XlaAttention  # noqa: E402
from inarch_tpu.buckets import bucket, shapes  # noqa: E402
from inarch_tpu.device import XlaDevice  # noqa: E402
from inarch_tpu.linear import XlaLinear  # noqa: E402
from inarch_tpu.mesh import make_mesh  # noqa: E402

SPEC = AttentionSpec(4, 4, 16, 16, 0.25, torch.float32)
LAYERS, PAGE = 3, 16


class Steps:
    """Decodes of a model that is attention alone."""

    def __init__(self, chips: int) -> None:
        self.device = XlaDevice(jax.devices()[:chips])
        kept = KVSpec((KVHeads(4, 16, 16),) * LAYERS, torch.float32)
        self.store = self.device.kv_store(kept, PAGE)
        self.attention = XlaAttention(SPEC, self.store, self.device)
        self.executor = self.device.executor()
        self.kv = self.store.allocate(32)

    def forward(self, inputs: StepInputs, kv: Any) -> Any:
        x = inputs.positions.float()[:, None, None].expand(-1, 4, 16)
        for layer in range(LAYERS):
            result = self.attention.run(layer, x, x, x, kv, inputs.plans[0])
            x, kv = result.out, result.kv
        return x.flatten(1), kv

    def decode(self, lengths: list[int]) -> np.ndarray:
        """One token more for each of some sequences, each with a page of its own."""
        count = len(lengths)
        shape = self.executor.bucket(StepShape(count, count, 1))
        more = shape.seqs - count
        batch = AttentionBatch(
            q_indptr=np.arange(shape.seqs + 1, dtype=np.int32),
            kv_lens=np.array([*lengths, *[1] * more], np.int32),
            rows=np.array([*range(count), *[31] * more], np.int32),
            page_table=np.array([[row + 1] for row in range(31)] + [[0]], np.int32),
            bucket=shape,
        )
        plan = self.attention.plan(batch)
        numbers = {
            "token_ids": np.zeros(shape.tokens, np.int64),
            "positions": batch.kv_lens.astype(np.int64) - 1,
            "last_token": np.arange(shape.seqs),
        }
        there = self.executor.upload(shape, numbers | dict(plan.arrays), plan.passing)
        inputs = StepInputs(*(there[name] for name in numbers), (plan.bind(there),))
        with torch.inference_mode():
            out, self.kv = self.executor.run(self.forward, shape, inputs, self.kv)
        return self.device.download(out).wait()[:count]


def addresses(kv: Any) -> list[int]:
    arrays = jax.tree.leaves(kv)
    return [s.data.unsafe_buffer_pointer() for x in arrays for s in x.addressable_shards]


@pytest.mark.parametrize("chips", [1, 4])
def test_a_step_writes_the_pages_where_they_lie(chips: int) -> None:
    steps = Steps(chips)
    old, before = steps.kv, addresses(steps.kv)
    steps.decode([1, 1, 1])
    assert addresses(steps.kv) == before
    assert all(x.is_deleted() for x in jax.tree.leaves(old))
    (program,) = steps.executor.programs.values()
    header = program.compiled.as_text().splitlines()[0]
    assert header.count("may-alias") + header.count("must-alias") == LAYERS
    taken = sum(s.data.nbytes for x in jax.tree.leaves(steps.kv) for s in x.addressable_shards)
    assert program.compiled.memory_analysis().alias_size_in_bytes * chips >= taken


def test_steps_of_one_bucket_are_one_program() -> None:
    steps = Steps(1)
    for length in range(1, 4):
        steps.decode([length] * 3)
        steps.decode([length] * 4)
    assert len(steps.executor.programs) == 1
    steps.decode([4] * 5)
    assert len(steps.executor.programs) == 2


def test_a_decode_reads_what_the_steps_before_it_wrote() -> None:
    """The first token is 0 and its key is 0; positions are keys and values alike."""
    steps = Steps(1)
    found = [steps.decode([length, length, length])[0, 0] for length in (1, 2, 3)]
    wanted = [_through_layers(length) for length in (1, 2, 3)]
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def _through_layers(length: int) -> float:
    """The last token's value, every one of 16 features being equal."""
    x = torch.arange(float(length))
    for _ in range(LAYERS):
        scores = torch.outer(x, x) * 16 * SPEC.scale
        scores = scores.masked_fill(torch.ones(length, length).triu(1).bool(), -torch.inf)
        x = scores.softmax(-1) @ x
    return float(x[-1])


def test_every_step_falls_into_a_bucket_that_is_prepared() -> None:
    most = StepShape(64, 8, 64)
    prepared = set(shapes(most))
    for tokens in range(1, 65):
        for seqs in range(1, min(tokens, 8) + 1):
            longest = 1 if tokens == seqs else tokens - seqs + 1
            found = bucket(StepShape(tokens, seqs, longest))
            assert found in prepared, (tokens, seqs)
            assert found.tokens >= tokens
            assert found.seqs >= seqs + (found.tokens > tokens and longest > 1)
            assert found.max_query >= longest


@pytest.mark.parametrize(("ends_pair", "axis"), [(False, 0), (True, 1)])
@pytest.mark.parametrize("shape", [(64, 32), (32, 64), (32, 32)])
def test_what_a_linear_layer_is_for_decides_how_it_is_split(
    shape: tuple[int, int], ends_pair: bool, axis: int
) -> None:
    """Not its shape: a down projection may widen, where experts are narrow."""
    linear = XlaLinear(make_mesh(jax.devices()[:4]))
    spec = LinearSpec(*shape, torch.float32, ends_pair=ends_pair)
    packed = linear.prepack(spec, torch.randn(shape), None)
    (part,) = {s.data.shape for s in packed.weight.array.addressable_shards}
    assert part == tuple(n // 4 if i == axis else n for i, n in enumerate(shape))


def test_a_pair_of_layers_adds_up_once_on_four_chips() -> None:
    linear = XlaLinear(make_mesh(jax.devices()[:4]))
    weights = [torch.randn(64, 32), torch.randn(32, 64)]
    up = linear.prepack(LinearSpec(64, 32, torch.float32), weights[0], None)
    down = linear.prepack(LinearSpec(32, 64, torch.float32, ends_pair=True), weights[1], None)

    def pair(x: Any, first: Any, last: Any) -> Any:
        return (x @ first.T) @ last.T

    text = jax.jit(pair).lower(np.ones((8, 32), np.float32), up.weight.array, down.weight.array)
    moved = text.compile().as_text()
    assert moved.count("all-reduce(") == 1
    assert "all-gather(" not in moved
