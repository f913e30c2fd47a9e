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

from inarch.engine.batch import HostBatch, build_batch, nothing, places, step_shape
from inarch.engine.plan import Pooled, PositionLogprobs, Scored, StepPlan
from inarch.engine.pooling import PooledStep, Pooler, token_types
from inarch.engine.sampler import Sampled, SampleInputs, Sampler, TokenMask
from inarch.engine.scoring import Scorer, Scores
from inarch.engine.table import RequestTable
from inarch.hal.executor import Executor, Step, StepInputs, StepShape
from inarch.hal.kv import CanonicalPages, KVState, KVStore
from inarch.models.model import Model


@dataclass(frozen=True)
class StepResult:
    """What a step produced, on the host. One token for every sequence of its plan.

    logprobs: by sequence, if any asked for them; each is of one position.
    prompts: what requests asked about positions of their prompts. vectors: of prompts to encode.
    """

    tokens: list[int]
    logprobs: dict[int, PositionLogprobs]
    prompts: list[tuple[Scored, PositionLogprobs]]
    vectors: list[tuple[Pooled, np.ndarray]]


@dataclass(frozen=True)
class Forwarded:
    """A step whose forward pass is launched, but not its sampling."""

    plan: StepPlan
    inputs: SampleInputs
    logits: Tensor | None  # None: nothing is sampled
    there: Mapping[str, Tensor]
    scores: Scores | None = None  # of prompts' tokens
    vectors: PooledStep | None = None


class InFlight:
    """A launched step."""

    def __init__(self, step: Forwarded, sampled: Sampled) -> None:
        self.plan = step.plan
        self._inputs = step.inputs
        self._sampled = sampled
        self._scores = step.scores
        self._vectors = step.vectors

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
        vectors = [] if self._vectors is None else self._vectors.wait()
        return StepResult(tokens.tolist(), self._logprobs(), prompts, vectors)

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
        model: Model,
        executor: Executor,
        sampler: Sampler,
        scorer: Scorer,
        pooler: Pooler,
        table: RequestTable,
        store: KVStore,
        kv: KVState,
        most: StepShape,
        *,
        tells_types: bool = False,
    ) -> None:
        """most: no step is larger in any respect. tells_types: the model tells the texts of a pair
        apart."""
        self._model = model
        self._executor = executor
        self._sampler = sampler
        self._scorer = scorer
        self._pooler = pooler
        self._table = table
        self._store = store
        self._kv = kv
        self._most = most
        self._step = self._forward  # one object, by which an executor knows what it captured
        self._hidden_step = self._hidden
        self._generates, self._tells_types = model.generates, tells_types

    def wanted(self, tokens: int) -> range:
        """Positions of a prompt to encode whose hidden states are needed."""
        return self._pooler.wanted(tokens)

    @torch.inference_mode()
    def forward(self, plan: StepPlan) -> Forwarded:
        """Give a step to the device. Steps run in the order in which they are launched."""
        if plan.scored or plan.pooled or not self._generates:
            return self._forward_further(plan)
        shape = self._executor.bucket(step_shape(plan))
        batch = build_batch(plan, self._table, shape)
        sample_inputs = self._sampler.prepare(plan)
        logits, there = self._run(batch, sample_inputs.arrays, self._step)
        return Forwarded(plan, sample_inputs, logits[: len(plan.requests)], there)

    @torch.inference_mode()
    def sample(self, step: Forwarded, mask: TokenMask | None) -> InFlight:
        """Give the rest of a step to the device, before another step's forward pass."""
        if step.logits is None:
            return InFlight(step, self._sampler.nothing())
        return InFlight(step, self._sampler.sample(step.logits, step.inputs, step.there, mask))

    def _forward_further(self, plan: StepPlan) -> Forwarded:
        """A step of which other hidden states are wanted than the last ones: it runs as it comes."""
        batch = build_batch(plan, self._table, step_shape(plan))
        inputs = {"last_token": self._wanted(plan, batch)}
        if self._tells_types:
            inputs["token_types"] = token_types(plan, batch)
        batch = replace(batch, inputs={**batch.inputs, **inputs})
        sample_inputs = self._sampler.prepare(plan)
        arrays = dict(sample_inputs.arrays)
        if plan.scored:
            arrays |= self._scorer.arrays(plan.scored)
        if plan.pooled:
            arrays |= self._pooler.arrays(plan.pooled, plan)
        hidden, there = self._run(batch, arrays, self._hidden_step)
        sampled = len(plan.requests)
        scored = sampled + sum(span.end - span.start for span in plan.scored)
        return Forwarded(
            plan,
            sample_inputs,
            self._model.logits(hidden[:sampled]) if plan.samples.any() else None,
            there,
            self._scorer.score(plan.scored, hidden[sampled:scored], there) if plan.scored else None,
            self._pooler.pool(plan.pooled, hidden[scored:], there) if plan.pooled else None,
        )

    @staticmethod
    def _wanted(plan: StepPlan, batch: HostBatch) -> np.ndarray:
        """Where the hidden states are that a step yields: last tokens, then what is asked for."""
        further = places([*plan.scored, *plan.pooled], plan, batch)
        return np.concatenate((batch.inputs["last_token"], further))

    @torch.inference_mode()
    def prepare(self) -> bool:
        """Run one more shape of step on padding, so that it is prepared; False if none is left."""
        shape = self._executor.unprepared(self._most)
        if shape is not None:
            self._run(build_batch(nothing(), self._table, shape), {}, self._step)
        return shape is not None

    @torch.inference_mode()
    def export_pages(self, pages: np.ndarray) -> CanonicalPages:
        """What the steps launched so far leave in pages; of a model without recurrent states."""
        return self._store.export_pages(self._kv, pages)

    @torch.inference_mode()
    def import_pages(self, pages: np.ndarray, data: CanonicalPages) -> None:
        """Fill pages, for the steps launched from now on; of a model without recurrent states."""
        self._kv = self._store.import_pages(self._kv, pages, data)

    def _run(
        self, batch: HostBatch, sampling: Mapping[str, np.ndarray], step: Step
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """What a step yields, and its arrays on the device: all that it needs goes up in one copy."""
        plans = self._model.plan(batch.attention)
        arrays = {**batch.inputs, **plans.arrays}
        there = self._executor.upload(batch.shape, arrays, {**sampling, **plans.passing})
        named = {name: there[name] for name in batch.inputs}
        inputs = StepInputs(**named, plans=plans.bind(there))
        result, self._kv = self._executor.run(step, batch.shape, inputs, self._kv)
        return result, there

    def _forward(self, inputs: StepInputs, kv: KVState) -> tuple[Tensor, KVState]:
        """The step that is run, and captured: the ids that the device alone knows, then the model."""
        known = replace(inputs, token_ids=self._sampler.resolve(inputs.token_ids))
        return self._model.forward(known, kv)

    def _hidden(self, inputs: StepInputs, kv: KVState) -> tuple[Tensor, KVState]:
        known = replace(inputs, token_ids=self._sampler.resolve(inputs.token_ids))
        return self._model.hidden(known, kv)
