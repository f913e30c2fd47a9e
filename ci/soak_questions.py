"""What a soak asks, and whether an answer is right: each question has one answer, found once, alone."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

PREFIXES = 4  # that questions share
FIRST_TOKEN = 8  # ids below it begin, end and separate
STOPS = ("e", " the", "\n", "zq")
LEAST_LOGPROB = -1000.0  # of a token that was chosen; the server writes -9999 for -inf


@dataclass(frozen=True)
class Question:
    """A request to /generate. Everything that is drawn for it is drawn from its own seed."""

    prompt: tuple[int, ...]
    sampling: dict[str, Any]
    logprobs: int | None  # how many most likely tokens with each one

    def body(self, *, stream: bool) -> dict[str, Any]:
        said: dict[str, Any] = {
            "input_ids": self.prompt, "sampling_params": self.sampling, "stream": stream,
        }  # fmt: skip
        if self.logprobs is not None:
            said |= {"return_logprob": True, "top_logprobs_num": self.logprobs}
        return said


@dataclass(frozen=True)
class Answer:
    """One sample's, as far as it must be the same every time."""

    token_ids: tuple[int, ...]
    text: str
    finish: str | None


def questions(count: int, *, vocabulary: int, longest: int, seed: int) -> list[Question]:
    """Prompts of up to `longest` tokens, half of them behind one of a few shared prefixes."""
    draw = random.Random(seed)

    def tokens(most: int) -> list[int]:
        length = draw.choice((round(most ** draw.random()), draw.randint(1, most)))
        return draw.choices(range(FIRST_TOKEN, vocabulary), k=length)

    prefixes = [
        draw.choices(range(FIRST_TOKEN, vocabulary), k=longest // (2 + i)) for i in range(PREFIXES)
    ]
    return [
        Question(
            (*(draw.choice(prefixes) if draw.random() < 0.5 else []), *tokens(longest // 2)),
            sampling(draw),
            draw.choice((None, None, 0, 4)),
        )
        for _ in range(count)
    ]


def sampling(draw: random.Random) -> dict[str, Any]:
    said: dict[str, Any] = {
        "max_new_tokens": draw.randint(1, 96),
        "temperature": 0.0,
        "ignore_eos": draw.random() < 0.8,
    }
    if draw.random() < 0.5:
        said |= {
            "temperature": draw.choice((0.7, 1.0, 1.5)),
            "sampling_seed": draw.randrange(2**40),
        }
        said |= draw.choice(({}, {"top_p": 0.9}, {"top_k": 20}, {"min_p": 0.05}))
    if draw.random() < 0.15:
        said["n"] = draw.randint(2, 4)
    if draw.random() < 0.2:
        said |= draw.choice(
            ({"repetition_penalty": 1.3}, {"frequency_penalty": 0.7}, {"presence_penalty": 1.1})
        )
    if draw.random() < 0.2:
        said["stop"] = draw.sample(STOPS, 2)
    return said


def answers(result: Any) -> list[Answer]:
    """Of what /generate sent: one result, or a list of them if there are several samples."""
    return [
        Answer(
            tuple(one["output_ids"]),
            one["text"],
            (one["meta_info"]["finish_reason"] or {}).get("type"),
        )
        for one in (result if isinstance(result, list) else [result])
    ]


def fault(result: Any, expected: Sequence[Answer]) -> str | None:
    """What is wrong with a whole answer, if anything."""
    found = answers(result)
    if len(found) != len(expected):
        return f"{len(found)} samples instead of {len(expected)}"
    for sample, (ours, right) in enumerate(zip(found, expected, strict=True)):
        if ours != right:
            return f"sample {sample}: {difference(ours, right)}"
    return unsound(result)


def unsound(result: Any) -> str | None:
    """A log-probability that is not a finite number (JSON has null where there was NaN)."""
    for one in result if isinstance(result, list) else [result]:
        for logprob, token, _ in one["meta_info"].get("output_token_logprobs", ()):
            if logprob is None or not math.isfinite(logprob) or logprob < LEAST_LOGPROB:
                return f"token {token} has the log-probability {logprob}"
    return None


def early_fault(result: Any, expected: Sequence[Answer]) -> str | None:
    """What is wrong with the beginning of an answer, if anything."""
    sample = result.get("index", 0)
    ours, right = answers(result)[0], expected[sample]
    if ours.token_ids != right.token_ids[: len(ours.token_ids)]:
        return f"sample {sample} began otherwise: {difference(ours, right)}"
    return unsound(result)


def difference(ours: Answer, right: Answer) -> str:
    pairs = enumerate(zip(ours.token_ids, right.token_ids, strict=False))
    for place, (mine, wanted) in pairs:
        if mine != wanted:
            return f"token {place} is {mine} instead of {wanted}"
    if len(ours.token_ids) != len(right.token_ids):
        return f"{len(ours.token_ids)} tokens instead of {len(right.token_ids)}"
    return f"{ours.text!r}, {ours.finish} instead of {right.text!r}, {right.finish}"
