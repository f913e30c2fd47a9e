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
from inarch.engine.plan import StepPlan
from inarch.engine.sampler import Sampled, SampleInputs, Sampler, TokenMask
from inarch.engine.table import RequestTable
from inarch.hal.executor import Executor, StepInputs, StepShape
from inarch.hal.kv import KVState
from inarch.models.decoder import Decoder


@dataclass(frozen=True)
class StepResult:
    """What a step produced, on the host. One token for every sequence of its plan.

    logprobs: sequence -> (chosen, top values, top ids), if any sequence asked for them.
    """

    tokens: list[int]
    logprobs: dict[int, tuple[float, np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Forwarded:
    """A step whose forward pass is launched, but not its sampling."""

    plan: StepPlan
    inputs: SampleInputs
    logits: Tensor
    there: Mapping[str, Tensor]


class InFlight:
    """A launched step."""

    def __init__(self, plan: StepPlan, inputs: SampleInputs, sampled: Sampled) -> None:
        self.plan = plan
        self._inputs = inputs
        self._sampled = sampled

    def ready(self) -> bool:
        return self._sampled.tokens.ready()

    def wait(self) -> StepResult:
        """Block until the device has finished the step."""
        tokens = self._sampled.tokens.wait()
        if not self._inputs.everyone:
            everyone = np.zeros(len(self.plan.requests), dtype=np.int64)
            everyone[self._inputs.sequences] = tokens
            tokens = everyone
        return StepResult(tokens.tolist(), self._logprobs())

    def _logprobs(self) -> dict[int, tuple[float, np.ndarray, np.ndarray]]:
        if self._sampled.logprobs is None:
            return {}
        chosen, values, ids = (part.wait() for part in self._sampled.logprobs)
        return {
            sequence: (float(chosen[i]), values[i], ids[i])
            for i, sequence in enumerate(self._inputs.sequences.tolist())
        }


class Runner:
    """Owns the KV state and everything on the device that a step needs."""

    def __init__(
        self,
        decoder: Decoder,
        executor: Executor,
        sampler: Sampler,
        table: RequestTable,
        kv: KVState,
        most: StepShape,
    ) -> None:
        """most: no step is larger in any respect."""
        self._decoder = decoder
        self._executor = executor
        self._sampler = sampler
        self._table = table
        self._kv = kv
        self._most = most
        self._step = self._forward  # one object, by which an executor knows what it captured

    @torch.inference_mode()
    def forward(self, plan: StepPlan) -> Forwarded:
        """Give a step to the device. Steps run in the order in which they are launched."""
        shape = self._executor.bucket(step_shape(plan))
        batch = build_batch(plan, self._table, shape)
        sample_inputs = self._sampler.prepare(plan)
        logits, there = self._run(batch, sample_inputs.arrays)
        return Forwarded(plan, sample_inputs, logits[: len(plan.requests)], there)

    @torch.inference_mode()
    def sample(self, step: Forwarded, mask: TokenMask | None) -> InFlight:
        """Give the rest of a step to the device, before another step's forward pass."""
        sampled = self._sampler.sample(step.logits, step.inputs, step.there, mask)
        return InFlight(step.plan, step.inputs, sampled)

    @torch.inference_mode()
    def prepare(self) -> bool:
        """Run one more shape of step on padding, so that it is prepared; False if none is left."""
        shape = self._executor.unprepared(self._most)
        if shape is not None:
            self._run(build_batch(nothing(), self._table, shape), {})
        return shape is not None

    def _run(
        self, batch: HostBatch, sampling: Mapping[str, np.ndarray]
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Logits of a step, and its arrays on the device: all that it needs goes up in one copy."""
        attention = self._decoder.plan(batch.attention)
        arrays = {**batch.inputs, **attention.arrays}
        there = self._executor.upload(batch.shape, arrays, {**sampling, **attention.passing})
        named = {name: there[name] for name in batch.inputs}
        inputs = StepInputs(**named, plans=attention.bind(there))
        logits, self._kv = self._executor.run(self._step, batch.shape, inputs, self._kv)
        return logits, there

    def _forward(self, inputs: StepInputs, kv: KVState) -> tuple[Tensor, KVState]:
        """The step that is run, and captured: the ids that the device alone knows, then the model."""
        known = replace(inputs, token_ids=self._sampler.resolve(inputs.token_ids))
        return self._decoder.forward(known, kv)
