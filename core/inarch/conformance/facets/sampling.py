"""Sampling: the same uniform number gives the same token everywhere, under every filter.

A number that lies on a border within what float32 can tell may fall to either side.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inarch.conformance.calls import Example, Outputs
from inarch.conformance.compare import in_float64
from inarch.hal.ops import sampling

FLOAT32 = torch.float32
ROWS, VOCAB = 7, 1003  # no multiple of anything
SLACK = 2e-6  # of a probability: what sums of float32 leave in doubt


def examples(dtypes: tuple[torch.dtype, ...]) -> Iterator[Example]:
    """Logits are float32, whatever a model computes in."""
    yield _example(sampling.greedy, "rows", lambda rng: {"logits": logits(rng)})
    yield _example(sampling.greedy, "ties", lambda rng: {"logits": logits(rng, step=1.0)})
    for name, filters in FILTERS.items():
        for vocab in (VOCAB, 32000):
            make = functools.partial(_make_sample, vocab, filters)
            yield _example(sampling.sample, f"{name}-{vocab}", make, accepted=borderline)
    yield _example(sampling.penalize, "rows", _make_penalize, dead=("logits",))
    yield _example(sampling.count_tokens, "rows", _make_count, dead=("counts",))
    yield _example(sampling.add_bias, "places", _make_bias, dead=("logits",))
    yield _example(sampling.apply_token_mask, "rows", _make_mask, dead=("logits",))
    for top in (0, 1, 20):
        make = functools.partial(_make_logprobs, top)
        yield _example(sampling.logprobs, f"top-{top}", make)


FILTERS: dict[str, tuple[str, ...]] = {
    "plain": (),
    "top-k": ("top_k",),
    "top-p": ("top_p",),
    "min-p": ("min_p",),
    "all": ("top_k", "top_p", "min_p"),
    "ties": ("top_k", "ties"),
}


def _example(op: Any, name: str, make: Any, **more: Any) -> Example:
    return Example(op, name, FLOAT32, {}, make, **more)


def logits(rng: np.random.Generator, vocab: int = VOCAB, step: float = 0.0) -> Tensor:
    """[ROWS, vocab]; step: round to multiples of it, so that many are equal."""
    numbers = rng.standard_normal((ROWS, vocab)) * 3
    return torch.from_numpy(np.round(numbers / step) * step if step else numbers).float()


def _make_sample(
    vocab: int, filters: Sequence[str], rng: np.random.Generator
) -> dict[str, Tensor | None]:
    def numbers(*choices: float) -> Tensor:
        return torch.from_numpy(rng.choice(choices, ROWS)).float()

    uniform = rng.random(ROWS)
    uniform[:2] = 0, 1 - 2**-24
    temperature = numbers(0.3, 0.7, 1.0, 2.0)
    temperature[-1] = 0
    values: dict[str, Tensor | None] = {
        "logits": logits(rng, vocab, 1.0 if "ties" in filters else 0.0),
        "temperature": temperature,
        "uniform": torch.from_numpy(uniform).float(),
    }
    given = {
        "top_k": numbers(1, 5, 40, vocab, vocab + 7).int(),
        "top_p": numbers(0.1, 0.6, 0.95, 1.0),
        "min_p": numbers(0.0, 0.02, 0.2),
    }
    return values | {name: given[name] if name in filters else None for name in given}


def borderline(host: Mapping[str, Any]) -> Sequence[Outputs]:
    """Answers row by row: of the answers to slightly other numbers, any may stand in each row."""
    nudges = [
        dict(zip(("uniform", "top_p", "min_p"), signs, strict=True))
        for signs in itertools.product((-1, 0, 1), repeat=3)
    ]
    found = torch.stack([in_float64(sampling.sample, _nudged(host, n)) for n in nudges])
    middle = in_float64(sampling.sample, host)
    doubtful = (found != middle).any(0)
    if not doubtful.any():
        return []
    # One doubtful row at a time would miss combinations: rows are few, so take them all.
    options = [sorted(set(found[:, row].tolist())) for row in range(ROWS)]
    return [
        (torch.tensor(tokens),) for tokens in itertools.islice(itertools.product(*options), 256)
    ]


def _nudged(host: Mapping[str, Any], by: Mapping[str, int]) -> dict[str, Any]:
    changed = {k: v.double() if _is_float(v) else v for k, v in host.items()}
    for name, sign in by.items():
        if changed[name] is not None:
            moved = changed[name] + sign * SLACK
            changed[name] = moved.clamp(0, 1 - 2**-53) if name == "uniform" else moved
    return changed


def _is_float(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _make_penalize(rng: np.random.Generator) -> dict[str, Tensor]:
    slots = 11

    def numbers(low: float, high: float, off: float) -> Tensor:
        found = torch.from_numpy(rng.uniform(low, high, ROWS)).float()
        found[0] = off
        return found

    return {
        "logits": logits(rng),
        "rows": torch.from_numpy(rng.permutation(slots)[:ROWS]),
        "prompt": torch.from_numpy(rng.random((slots, VOCAB)) < 0.2),
        "counts": torch.from_numpy(rng.integers(0, 3, (slots, VOCAB), dtype=np.int32)),
        "repetition": numbers(0.8, 1.5, 1.0),
        "frequency": numbers(-0.5, 0.5, 0.0),
        "presence": numbers(-0.5, 0.5, 0.0),
    }


def _make_count(rng: np.random.Generator) -> dict[str, Tensor]:
    rows, tokens = rng.integers(0, 11, ROWS), rng.integers(0, VOCAB, ROWS)
    rows[1], tokens[1] = rows[0], tokens[0]
    rows[2] = rows[0]
    return {
        "counts": torch.from_numpy(rng.integers(0, 3, (11, VOCAB), dtype=np.int32)),
        "rows": torch.from_numpy(rows),
        "tokens": torch.from_numpy(tokens),
    }


def _make_bias(rng: np.random.Generator) -> dict[str, Tensor]:
    values = rng.standard_normal(40).astype(np.float32)
    values[::9] = -np.inf
    places = rng.permutation(ROWS * VOCAB)[:40]
    return {
        "logits": logits(rng),
        "rows": torch.from_numpy(places // VOCAB),
        "tokens": torch.from_numpy(places % VOCAB),
        "values": torch.from_numpy(values),
    }


def _make_mask(rng: np.random.Generator) -> dict[str, Tensor]:
    words = rng.integers(-(2**31), 2**31, (4, -(-VOCAB // 32)), dtype=np.int64).astype(np.int32)
    words[0] = -1
    rows = rng.permutation(ROWS)[:4]
    return {
        "logits": logits(rng),
        "bitmask": torch.from_numpy(words),
        "rows": torch.from_numpy(rows),
    }


def _make_logprobs(top: int, rng: np.random.Generator) -> dict[str, Any]:
    tokens = torch.from_numpy(rng.integers(0, VOCAB, ROWS))
    return {"logits": logits(rng), "tokens": tokens, "top": top}
