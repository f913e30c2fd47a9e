"""Steps as XLA programs: one for each bucket, with the KV state donated to it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import fields
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from torch import Tensor

from inarch.hal.executor import Kept, Step, StepInputs, StepShape
from inarch.hal.kv import KVState
from inarch_tpu.buckets import bucket, shapes
from inarch_tpu.kv import Pages
from inarch_tpu.program import Program, signature
from inarch_tpu.tensor import JaxTensor, refuse, uploaded

log = logging.getLogger(__name__)

jax.tree_util.register_dataclass(StepInputs, [f.name for f in fields(StepInputs)], [])


class XlaExecutor:
    """ran: is told the bytes of scratch that each program takes, and what it gives."""

    def __init__(self, mesh: Mesh, ran: Callable[[int, JaxTensor], None]) -> None:
        self._mesh, self._ran = mesh, ran
        self.programs: dict[Hashable, Program] = {}  # compiled so far
        self._prepared: set[StepShape] = set()

    def bucket(self, shape: StepShape) -> StepShape:
        return bucket(shape)

    def unprepared(self, most: StepShape) -> StepShape | None:
        return next((shape for shape in shapes(most) if shape not in self._prepared), None)

    def kept(self, most: StepShape) -> Kept | None:
        return None

    def upload(
        self,
        shape: StepShape,
        arrays: Mapping[str, np.ndarray],
        passing: Mapping[str, np.ndarray],
    ) -> dict[str, Tensor]:
        return {name: uploaded(array) for name, array in {**arrays, **passing}.items()}

    def run(
        self, step: Step, shape: StepShape, inputs: StepInputs, kv: KVState
    ) -> tuple[Tensor, KVState]:
        self._prepared.add(shape)
        return self.run_as_it_comes(step, inputs, kv)

    def run_as_it_comes(
        self, step: Step, inputs: StepInputs, kv: KVState
    ) -> tuple[Tensor, KVState]:
        """Run a step of any shape, which is compiled if it is new."""
        if not isinstance(kv, Pages):
            raise refuse("a recurrent state beside the KV pages")
        leaves, tree = jax.tree.flatten((inputs, kv))
        key = (step, signature(leaves, tree))
        if key not in self.programs:
            self.programs[key] = self._compile(step, leaves, tree, len(jax.tree.leaves(kv)))
        program = self.programs[key]
        out, state = program(leaves)
        self._ran(program.scratch_bytes, out)
        return out, state

    def _compile(self, step: Step, leaves: list[Any], tree: Any, state: int) -> Program:
        """state: how many of the leaves, the last ones, are the KV state's."""
        started = time.perf_counter()
        donated = list(range(len(leaves) - state, len(leaves)))
        program = Program(step, leaves, tree, donated, self._mesh)
        tokens, seconds = len(leaves[0]), time.perf_counter() - started
        log.info("compiled a step of %d tokens in %.1f s", tokens, seconds)
        return program
