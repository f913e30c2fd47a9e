"""HCCL's process group, played by gloo between processes that simulate an NPU each."""

from __future__ import annotations

import types
from typing import Any

import torch
import torch.distributed as dist

from inarch_ascend.simulation.memory import machine, uncovered


class ProcessGroupHCCL:
    """What torch's bindings of a process group call, on what the tensors hide."""

    class Options(types.SimpleNamespace):
        """Takes what is set, as the real one does for the fields that the backend sets."""

    def __init__(self, store: Any, rank: int, size: int, options: Options) -> None:
        assert options.global_ranks_in_group == list(range(size))
        self._group = dist.ProcessGroupGloo(store, rank, size, options._timeout)

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._group, name)

        def on_hidden(*arguments: Any) -> Any:
            machine.given += 1
            with torch.inference_mode(False):
                return call(*uncovered(arguments))

        return on_hidden
