"""Run a step plan on the device: batch, attention plan, forward pass, sampling.

`forward` and `sample` return as soon as the work is given to the device; results are read from what
`sample` returns. Between the two the host may wait for an earlier step, to say what may be sampled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from inarch.engine.batch import HostBatch, build_batch, nothing, step_shape
from inarch.engine.plan import PositionLogprobs, Scored, StepPlan
from inarch.engine.sampler import Sampled, SampleInputs, Sampler, TokenMask
from inarch.engine.scoring import Scorer, Scores
from inarch.engine.table import RequestTable
from inarch.hal.executor import Executor, Step, StepInputs, StepShape
from inarch.hal.kv import KVState
from inarch.models.model import Model


@dataclass(frozen=True)
class StepResult:
    """What a step produced, on the host. One token for every sequence of its plan.

    logprobs: by sequence, if any asked for them; each is of one position.
    prompts: what requests asked about positions of their prompts.
    """

    tokens: list[int]
    logprobs: dict[int, PositionLogprobs]
    prompts: list[tuple[Scored, PositionLogprobs]]


@dataclass(frozen=True)
class Forwarded:
    """A step whose forward pass is launched, but not its sampling."""

    plan: StepPlan
    inputs: SampleInputs
    logits: Tensor
    there: Mapping[str, Tensor]
    scores: Scores | None  # of prompts' tokens


class InFlight:
    """A launched step."""

    def __init__(
        self, plan: StepPlan, inputs: SampleInputs, sampled: Sampled, scores: Scores | None
    ) -> None:
        self.plan = plan
        self._inputs = inputs
        self._sampled = sampled
        self._scores = scores

    def ready(self) -> bool:
        return self._sampled.tokens.ready()

    def wait(self) -> StepResult:
        """Block until the device has finished the step."""
        tokens = self._sampled.tokens.wait()
        if not self._inputs.everyone:
            everyone = np.zeros(len(self.plan.requests), dtype=np.int64)
            everyone[self._inputs.sequences] = tokens
            tokens = everyone
        prompts = [] if self._scores is None else self._scores.wait()
        return StepResult(tokens.tolist(), self._logprobs(), prompts)

    def _logprobs(self) -> dict[int, PositionLogprobs]:
        if self._sampled.logprobs is None:
            return {}
        chosen, values, ids, wanted = (part.wait() for part in self._sampled.logprobs)
        return {
            sequence: PositionLogprobs(
                chosen[i : i + 1], values[i : i + 1], ids[i : i + 1], wanted[i : i + 1]
            )
            for i, sequence in enumerate(self._inputs.sequences.tolist())
        }


class Runner:
    """Owns the KV state and everything on the device that a step needs."""

    def __init__(
        self,
        decoder: Model,
        executor: Executor,
        sampler: Sampler,
        scorer: Scorer,
        table: RequestTable,
        kv: KVState,
        most: StepShape,
    ) -> None:
        """most: no step is larger in any respect."""
        self._decoder = decoder
        self._executor = executor
        self._sampler = sampler
        self._scorer = scorer
        self._table = table
        self._kv = kv
        self._most = most
        self._step = self._forward  # one object, by which an executor knows what it captured
        self._scored_step = self._hidden

    @torch.inference_mode()
    def forward(self, plan: StepPlan) -> Forwarded:
        """Give a step to the device. Steps run in the order in which they are launched."""
        if plan.scored:
            return self._forward_scored(plan)
        shape = self._executor.bucket(step_shape(plan))
        batch = build_batch(plan, self._table, shape)
        sample_inputs = self._sampler.prepare(plan)
        logits, there = self._run(batch, sample_inputs.arrays, self._step)
        return Forwarded(plan, sample_inputs, logits[: len(plan.requests)], there, None)

    @torch.inference_mode()
    def sample(self, step: Forwarded, mask: TokenMask | None) -> InFlight:
        """Give the rest of a step to the device, before another step's forward pass."""
        sampled = self._sampler.sample(step.logits, step.inputs, step.there, mask)
        return InFlight(step.plan, step.inputs, sampled, step.scores)

    def _forward_scored(self, plan: StepPlan) -> Forwarded:
        """A step of which more hidden states are wanted than the last ones: it runs as it comes."""
        batch = build_batch(plan, self._table, step_shape(plan))
        last_token = np.concatenate((batch.inputs["last_token"], self._scorer.places(plan, batch)))
        batch = replace(batch, inputs={**batch.inputs, "last_token": last_token})
        sample_inputs = self._sampler.prepare(plan)
        arrays = {**sample_inputs.arrays, **self._scorer.arrays(plan.scored)}
        hidden, there = self._run(batch, arrays, self._scored_step)
        count = len(plan.requests)
        scores = self._scorer.score(plan.scored, hidden[count:], there)
        logits = self._decoder.logits(hidden[:count])
        return Forwarded(plan, sample_inputs, logits, there, scores)

    @torch.inference_mode()
    def prepare(self) -> bool:
        """Run one more shape of step on padding, so that it is prepared; False if none is left."""
        shape = self._executor.unprepared(self._most)
        if shape is not None:
            self._run(build_batch(nothing(), self._table, shape), {}, self._step)
        return shape is not None

    def _run(
        self, batch: HostBatch, sampling: Mapping[str, np.ndarray], step: Step
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """What a step yields, and its arrays on the device: all that it needs goes up in one copy."""
        attention = self._decoder.plan(batch.attention)
        arrays = {**batch.inputs, **attention.arrays}
        there = self._executor.upload(batch.shape, arrays, {**sampling, **attention.passing})
        named = {name: there[name] for name in batch.inputs}
        inputs = StepInputs(**named, plans=attention.bind(there))
        result, self._kv = self._executor.run(step, batch.shape, inputs, self._kv)
        return result, there

    def _forward(self, inputs: StepInputs, kv: KVState) -> tuple[Tensor, KVState]:
        """The step that is run, and captured: the ids that the device alone knows, then the model."""
        known = replace(inputs, token_ids=self._sampler.resolve(inputs.token_ids))
        return self._decoder.forward(known, kv)

    def _hidden(self, inputs: StepInputs, kv: KVState) -> tuple[Tensor, KVState]:
        known = replace(inputs, token_ids=self._sampler.resolve(inputs.token_ids))
        return self._decoder.hidden(known, kv)
