"""Answers that many requests get side by side, against each one's own: rows, blocks of random numbers
and tables of what was seen are used again and again, and none may leave a trace."""

from __future__ import annotations

import random
from collections import deque
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from inarch.engine.philox import uniforms
from inarch.engine.request import Request
from inarch.engine.sampler import BLOCK, Sampled, SampleInputs, Sampler
from inarch.engine.scheduler import Scheduler
from inarch.hal.dispatch import Dispatcher
from inarch.hal.ops import sampling as ops
from inarch.hal.reference.device import ReferenceDevice
from inarch.sampling import SamplingParams

VOCABULARY, STOP, ROWS = 12, 3, 3
# Fields of a request's parameters; each is taken or left out.
ASKED: list[dict[str, Any]] = [
    {"temperature": 0.0},
    {"temperature": 1e-40},
    {"temperature": 0.6},
    {"top_k": 3},
    {"top_p": 0.7},
    {"min_p": 0.2},
    {"repetition_penalty": 1.7},
    {"frequency_penalty": 0.9},
    {"frequency_penalty": -0.9},
    {"presence_penalty": 0.8},
    {"logit_bias": {5: 3.0, 7: -100.0}},
    {"min_tokens": 9},
    {"min_tokens": 3},
    {"logprobs": 2},
    {"logprobs": 0, "logprob_token_ids": (4, 1, 4)},
]


def logits_of(tokens: list[int]) -> Tensor:
    """A pretend model: float32 [1, V], another for every text."""
    generator = torch.Generator().manual_seed(hash(tuple(tokens)) % 2**32)
    logits = torch.randn(1, VOCABULARY, generator=generator) * 2
    logits[0, STOP] += 1
    return logits


def next_token(request: Request, tokens: list[int]) -> int:
    """Of a request whose prompt and answer so far are `tokens`, by the definitions alone."""
    params, output = request.params, tokens[len(request.prompt) :]
    logits = logits_of(tokens).double()[0]
    counts = np.bincount(output, minlength=VOCABULARY)
    for token in range(VOCABULARY):
        if token in tokens:
            divide = logits[token] > 0
            logits[token] *= params.repetition_penalty ** (-1 if divide else 1)
        logits[token] -= params.frequency_penalty * counts[token]
        logits[token] -= params.presence_penalty * (counts[token] > 0)
        logits[token] += params.logit_bias.get(token, 0)
    if len(output) < params.min_tokens:
        logits[STOP] = -torch.inf
    if params.temperature < 1e-5:
        return int(logits.argmax())
    at = len(tokens)
    drawn = uniforms(np.array([request.seed % 2**64], np.uint64), at // BLOCK * BLOCK, BLOCK)
    return int(
        ops.sample(
            logits[None].float(),
            torch.tensor([params.temperature]),
            torch.tensor([drawn[0, at % BLOCK]]),
            torch.tensor([params.top_k if params.top_k > 0 else VOCABULARY], dtype=torch.int32),
            torch.tensor([params.top_p]),
            torch.tensor([params.min_p]),
        )
    )


class Serving:
    """A scheduler and a sampler around the pretend model, with a step in flight as in the engine."""

    def __init__(self) -> None:
        self.scheduler = Scheduler(
            pages=200, page_tokens=4, max_running=ROWS, max_step_tokens=9, context_length=300
        )
        self.sampler = Sampler(ROWS, VOCABULARY, ReferenceDevice(), Dispatcher())
        self.flight: deque[Any] = deque()
        self.texts: dict[Request, list[int]] = {}  # as the device knows them

    def add(self, request: Request) -> None:
        self.texts[request] = request.prompt.tolist()
        self.scheduler.add(request)

    def step(self) -> None:
        plan = self.scheduler.plan()
        if plan is not None:
            texts = [
                self.texts[request][: int(plan.starts[s] + plan.lengths[s])]
                for s, request in enumerate(plan.requests)
            ]
            rows = torch.from_numpy(plan.rows[: plan.decodes].astype(np.int64))
            last = self.sampler.resolve(~rows).tolist()
            assert last == [text[-1] for text in texts[: plan.decodes]]
            inputs = self.sampler.prepare(plan)
            there = {name: torch.from_numpy(array) for name, array in inputs.arrays.items()}
            sampled = self.sampler.sample(torch.cat([*map(logits_of, texts)]), inputs, there)
            self.scheduler.publish(plan)
            tokens = np.zeros(len(plan.requests), dtype=np.int64)
            tokens[inputs.sequences] = sampled.tokens.wait()
            for place, s in enumerate(inputs.sequences.tolist()):
                check_logprobs(plan.requests[s].params, texts[s], place, sampled, inputs)
                self.texts[plan.requests[s]].append(int(tokens[s]))
            self.flight.append((plan, tokens.tolist()))
        if len(self.flight) > 1 or plan is None:
            self.scheduler.commit(*self.flight.popleft())


def check_logprobs(
    params: SamplingParams, text: list[int], place: int, sampled: Sampled, inputs: SampleInputs
) -> None:
    """They are of what the model said, whatever penalties and biases made of it."""
    if params.logprobs is None:
        return
    assert sampled.logprobs is not None
    assert inputs.logprobs is not None
    assert inputs.logprobs >= params.logprobs
    exact = logits_of(text).log_softmax(-1)[0]
    chosen, values, _, wanted = (part.wait()[place] for part in sampled.logprobs)
    token = int(sampled.tokens.wait()[place])
    assert chosen == pytest.approx(float(exact[token]), abs=1e-5)
    top = exact.topk(params.logprobs).values
    assert values[: params.logprobs] == pytest.approx(top.numpy(), abs=1e-5)
    asked = params.logprob_token_ids
    assert wanted[: len(asked)] == pytest.approx(exact[list(asked)].numpy(), abs=1e-5)


def some_request(handle: int, luck: random.Random) -> Request:
    fields: dict[str, Any] = {}
    for field in luck.sample(ASKED, luck.randint(0, 6)):
        fields |= field
    prompt = [luck.randrange(VOCABULARY) for _ in range(luck.randint(1, 70))]
    return Request(
        handle,
        np.array(prompt, dtype=np.int32),
        SamplingParams(**fields),
        max_tokens=luck.randint(9, 24),
        stop_ids=frozenset([STOP]),
        seed=luck.randrange(-(2**63), 2**63),
    )


def test_an_answer_depends_on_its_own_request_alone() -> None:
    luck, serving = random.Random(0), Serving()
    requests = [some_request(handle, luck) for handle in range(40)]
    for request in requests:
        serving.add(request)
    for _ in range(5000):
        if luck.random() < 0.1:
            serving.scheduler.retract_all()
        serving.step()
        if not serving.scheduler.has_work and not serving.flight:
            break
    assert sum(request.retractions > 0 for request in requests) > 5
    for request in requests:
        text = request.prompt.tolist()
        for token in request.output:
            assert token == next_token(request, text), (request.params, len(text))
            text.append(token)
        assert len(request.output) == request.max_tokens or request.output[-1] == STOP
