"""Plain torch code on JAX arrays: what it computes, what it may write to, and what a program reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

jax = pytest.importorskip("jax", reason="JAX is not installed: pip install -r ci/jax.txt")

from torch import Tensor  # noqa: E402

from inarch.errors import UnsupportedError  # noqa: E402
from inarch.hal.ops import sampling as reference  # noqa: E402
from inarch_tpu import sampling  # noqa: E402
from inarch_tpu.dtypes import from_jax, to_numpy  # noqa: E402
from inarch_tpu.mesh import make_mesh  # noqa: E402
from inarch_tpu.program import Program  # noqa: E402
from inarch_tpu.tensor import JaxTensor, uploaded, value  # noqa: E402


@pytest.fixture(autouse=True)
def _serving() -> Iterator[None]:
    with torch.inference_mode():
        yield


def there(host: Tensor) -> JaxTensor:
    return uploaded(to_numpy(host))


def back(tensor: Tensor) -> Tensor:
    return from_jax(value(tensor))


X, W = torch.randn(4, 8, generator=torch.Generator().manual_seed(0)), torch.arange(8.0)
PLACES = torch.tensor([2, 0, 2])
OPERATIONS: list[Callable[[Tensor], Tensor]] = [
    lambda x: F.silu(x) * F.gelu(x, approximate="tanh") - F.softplus(x),
    lambda x: x.float().chunk(2, -1)[1],
    lambda x: torch.cat((x[:, 0:1], x[1:3, ::2].flatten()[:4, None]), 1),
    lambda x: F.linear(x, torch.ones(3, 8), W[:3]),
    lambda x: torch.einsum("ij,kj->ik", x, x),
    lambda x: torch.where(x > 0, x, 0) / (x.abs() + 1),
    lambda x: x.masked_fill(x > 0, -torch.inf).logsumexp(-1, keepdim=True).exp(),
    lambda x: x[None, :, :, None].expand(2, -1, -1, 3).unflatten(2, (2, -1)),
    lambda x: torch.cat(x.topk(3), 1),
    lambda x: F.layer_norm(x, (8,), W, W),
    lambda x: F.scaled_dot_product_attention(x[None], x[None], x[None], is_causal=True),
    lambda x: F.pad(x, (1, 2, 0, 1)).repeat(2, 1).repeat_interleave(2, dim=1),
    lambda x: x.clamp(max=0.1).amax(-1) + x.sum() + x.mean(-1) - x.square().amin(),
    lambda x: x[PLACES, PLACES] + x.index_select(0, PLACES)[:, 1] + W[PLACES],
    lambda x: x.gather(1, PLACES.view(1, 3)).new_zeros(3).index_copy(0, PLACES[:2], W[:2]),
    lambda x: x.to(torch.bfloat16).view(torch.int16).to(torch.int32),
    lambda x: x.tril().cumsum(0) + x.triu(1).roll(1, 0),
    lambda x: (x.sort(descending=True).values, x.softmax(-1))[1].log().permute(1, 0),
]


@pytest.mark.parametrize("number", range(len(OPERATIONS)))
def test_torch_code_gives_what_it_gives_on_the_cpu(number: int) -> None:
    run = OPERATIONS[number]
    torch.testing.assert_close(back(run(there(X))), run(X.clone()), rtol=1e-5, atol=1e-5)


def test_writing_in_place_is_seen_by_whoever_holds_the_tensor() -> None:
    ours, theirs = there(X), X.clone()
    for x in (ours, theirs):
        x *= 2
        x[1] = 0
        x[torch.tensor([0, 2, 3])] = torch.ones(8)
        x.index_copy_(1, torch.tensor([7, 1]), torch.full((4, 2), 5.0))
    assert torch.equal(back(ours), theirs)


@pytest.mark.parametrize(
    ("what", "why"),
    [
        (lambda x: x[:, 1].mul_(2), "writing through a view whose elements lie apart"),
        (lambda x: torch.zeros(4, 8).add_(x), "values of the device to a tensor of the host"),
        (lambda x: torch.linalg.eigvals(x[:, :4]), "linalg_eig"),
        (lambda x: x.data_ptr(), "a tensor's address"),
    ],
)
def test_what_no_program_can_do_is_refused_by_name(what: Callable[[Tensor], Any], why: str) -> None:
    with pytest.raises(UnsupportedError, match=why):
        what(there(X))


# ---- programs ----


def program(function: Callable[..., Any], *leaves: Any, donated: tuple[int, ...] = ()) -> Program:
    tree = jax.tree.structure(tuple(leaves))
    return Program(function, list(leaves), tree, list(donated), make_mesh(jax.devices()[:1]))


def test_a_program_reads_what_it_found_outside_as_it_is_at_each_run() -> None:
    weight, last = torch.full((8,), 3.0), there(torch.zeros(4))
    run = program(lambda x: (x * weight).sum(-1) + last, there(X))
    before = back(run([there(X)]))
    last += 1
    torch.testing.assert_close(back(run([there(X)])), before + 1)
    torch.testing.assert_close(before, (X * 3).sum(-1))


def test_a_program_may_not_write_to_what_it_found_outside() -> None:
    outside = there(torch.zeros(4))
    with pytest.raises(UnsupportedError, match="a step that writes to a tensor from outside"):
        program(lambda x: outside.add_(x[:, 0]), there(X))


def test_what_is_donated_is_overwritten() -> None:
    state = jax.numpy.zeros((4, 8))
    run = program(lambda x, state: (x.sum(), state + value(x)), there(X), state, donated=(1,))
    _, new = run([there(X), state])
    np.testing.assert_array_equal(new, X)
    with pytest.raises(RuntimeError, match="deleted"):
        np.asarray(state)


# ---- sampling ----

ROWS, VOCABULARY = 5, 300


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


LOGITS = drawn(1, ROWS, VOCABULARY) * 12
COUNTS = (drawn(2, ROWS + 2, VOCABULARY) < 0.2).int()
SEEN = drawn(3, ROWS + 2, VOCABULARY) < 0.2
ORDER = torch.tensor([4, 0, 6, 1, 3])
UNIFORM = torch.tensor([0.0, 0.3, 0.6, 0.999999, 0.5])
WARM = torch.tensor([0.0, 0.7, 1.0, 1.5, 1.0])
KS = torch.tensor([5, 300, 7, 1, 40], dtype=torch.int32)
PS = torch.tensor([0.9, 0.5, 1.0, 0.3, 0.8])
BITS = torch.from_numpy(np.random.default_rng(5).integers(-(2**31), 2**31, (3, 10), np.int32))
SAMPLED: list[tuple[str, tuple[Any, ...]]] = [
    ("greedy", (LOGITS,)),
    ("sample", (LOGITS, WARM, UNIFORM)),
    ("sample", (LOGITS, WARM, UNIFORM, KS, PS, PS * 0.01)),
    ("penalize", (LOGITS, ORDER, SEEN, COUNTS, PS + 0.5, PS, WARM)),
    ("count_tokens", (COUNTS, ORDER, ORDER)),
    ("add_bias", (LOGITS, ORDER[:3] % ROWS, ORDER[:3], torch.tensor([1.0, -torch.inf, 2.0]))),
    ("apply_token_mask", (LOGITS, BITS, torch.tensor([3, 0, 2]))),
    ("logprobs", (LOGITS, ORDER, 4)),
]


@pytest.mark.parametrize("number", range(len(SAMPLED)))
@pytest.mark.parametrize("padding", [0, 3])
def test_sampling_is_that_of_the_reference_whatever_is_behind_the_rows(
    number: int, padding: int
) -> None:
    """padding: rows of the step's bucket behind the sequences."""
    name, given = SAMPLED[number]
    expected = getattr(reference, name)(*(x.clone() if isinstance(x, Tensor) else x for x in given))
    ours = [there(x) if isinstance(x, Tensor) else x for x in given]
    if given[0] is LOGITS:
        ours[0] = JaxTensor(
            jax.numpy.asarray(F.pad(LOGITS, (0, 0, 0, padding), value=50.0).numpy()), rows=ROWS
        )
    found = getattr(sampling, name)(*ours)
    pairs = zip(found, expected, strict=True) if name == "logprobs" else [(found, expected)]
    for mine, theirs in pairs:
        assert tuple(mine.shape) == tuple(theirs.shape)
        assert mine.dtype == theirs.dtype
        torch.testing.assert_close(back(mine), theirs, rtol=1e-5, atol=1e-5, check_dtype=False)


@pytest.mark.parametrize(
    ("name", "given", "on_device"),
    [("add_bias", SAMPLED[5][1], 3), ("apply_token_mask", SAMPLED[6][1], 1)],
)
def test_what_is_padded_and_what_is_not_may_come_together(
    name: str, given: tuple[Tensor, ...], on_device: int
) -> None:
    """Places from the host are padded; what was computed on the device is not."""
    expected = getattr(reference, name)(*(x.clone() for x in given))
    ours = [JaxTensor(jax.numpy.asarray(x.numpy())) if i in (0, on_device) else x
            for i, x in enumerate(given)]  # fmt: skip
    assert torch.equal(back(getattr(sampling, name)(*ours)), expected)


def test_rows_that_sample_are_taken_and_noted_without_a_program_for_each_count() -> None:
    logits = JaxTensor(jax.numpy.asarray(LOGITS.numpy()))
    last = there(torch.zeros(9, dtype=torch.int64))
    some = there(torch.tensor([3, 1, 0]))
    taken = logits[:4][some]
    assert torch.equal(back(taken), LOGITS[[3, 1, 0]])
    tokens = sampling.greedy(taken)
    last.index_copy_(0, there(torch.tensor([8, 2, 5])), tokens)
    expected = torch.zeros(9, dtype=torch.int32)
    expected[[8, 2, 5]] = LOGITS[[3, 1, 0]].argmax(-1).int()
    assert torch.equal(back(last), expected)
    assert value(logits).shape == (ROWS, VOCABULARY)
    assert len(taken.array) == len(tokens.array) == 4


def both(run: Callable[[Tensor], Any]) -> None:
    """The same on the CPU and on JAX arrays."""
    host = torch.arange(24.0).reshape(4, 6)
    expected, found = run(host.clone()), run(uploaded(host.numpy()))
    for ours, right in zip(found, expected, strict=True):
        np.testing.assert_array_equal(np.asarray(value(ours)), right.numpy())


def test_what_is_written_to_a_view_is_written_to_all_that_share_its_memory() -> None:
    def run(x: Tensor) -> tuple[Tensor, ...]:
        middle, flat, row = x[1:3], x.view(24), x[1]
        part = middle.view(3, 4)[1:]
        part.mul_(10)
        row.add_(1)
        return x, middle, flat, row, part

    both(run)


def test_a_view_shows_what_was_written_to_its_base_since() -> None:
    def run(x: Tensor) -> tuple[Tensor, ...]:
        columns, turned, halves = x[:, 1:3], x.t(), x.chunk(2, -1)
        first, last = x[:2], x[2:]
        before = columns + 0
        x.neg_()
        x.index_copy_(0, torch.tensor([2]), torch.ones(1, 6))
        return before, columns, turned, *halves, first.clone(), last[torch.tensor([1])]

    both(run)


def test_views_are_made_in_and_out_of_inference_mode() -> None:
    with torch.inference_mode(False):
        x = uploaded(np.arange(6.0, dtype=np.float32))
    half = x.chunk(2)[1]
    np.testing.assert_array_equal(np.asarray(value(half[1:] + x[:2])), [4.0, 6.0])
