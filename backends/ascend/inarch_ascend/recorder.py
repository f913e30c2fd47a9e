"""Records steps as NPU graphs, and tells each replay what the host knows.

The lengths of the sequences are arguments that attention takes from the host, so that a graph has
those of its capture baked in. torch-npu captures each such call as a task group which waits for an
event; `NPUGraph.update` then gives every group its new arguments, on a stream of its own, and sets its
event. The tasks of a graph must not change while its last replay still runs: the host waits for that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from inarch.hal.executor import StepInputs


@dataclass(frozen=True)
class NPURecording:
    """A step that can be repeated. replayed: the end of the last replay, of any graph."""

    graph: Any  # torch.npu.NPUGraph
    logits: Tensor  # overwritten by every replay
    replayed: Any  # torch.npu.Event

    def replay(self, inputs: StepInputs) -> Tensor:
        updates = host_updates(inputs)
        self.replayed.synchronize()
        self.graph.replay()
        if updates is not None:
            self.graph.update(cpu_update_input=[updates])
        self.replayed.record()
        return self.logits


class NPURecorder:
    """The pool of memory that graphs share. What else is launched is a function of a step's shape."""

    def __init__(self) -> None:
        self._pool = torch.npu.graph_pool_handle()
        self._replayed = torch.npu.Event()

    def record(self, work: Callable[[], Tensor]) -> NPURecording:
        graph = torch.npu.NPUGraph()
        with torch.npu.graph(graph, pool=self._pool, auto_dispatch_capture=True):
            logits = work()
        return NPURecording(graph, logits, self._replayed)

    def reclaim(self) -> None:
        torch.npu.synchronize()  # the last replay may still run
        torch.npu.empty_cache()


def host_updates(inputs: StepInputs) -> dict[str, list[int]] | None:
    """What attention must be told before a replay: the same for all of a step's plans."""
    found = [plan.host_update for plan in inputs.plans if hasattr(plan, "host_update")]
    if any(update != found[0] for update in found):
        raise RuntimeError(f"the plans of one step differ in their lengths: {found}")
    return found[0] if found else None
