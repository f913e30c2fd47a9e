"""torch_npu, as far as the backend uses it, put together of played parts and the wheel's own.

The C part is played; what is Python in the wheel, `NPUGraph`, `graph` and the handlers that record and
update attention, is the wheel's own.
"""

from __future__ import annotations

import sys
import types
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inarch_ascend.simulation.checking import check
from inarch_ascend.simulation.collectives import ProcessGroupHCCL
from inarch_ascend.simulation.graphs import (
    CapturedGraph,
    Event,
    ExternalEvent,
    Stream,
    any_capture,
    group_begin,
    group_end,
    on_stream,
    update_begin,
    update_end,
)
from inarch_ascend.simulation.memory import NPUError, machine, poison, register
from inarch_ascend.simulation.operators import COMPUTE
from inarch_ascend.simulation.wheel import (
    Stub,
    define_schemas,
    execute,
    public_names,
    register_metas,
    wheel_version,
)


def _module() -> types.ModuleType:
    module = types.ModuleType("torch_npu.npu")
    vars(module).update(
        Stream=Stream, Event=Event, ExternalEvent=ExternalEvent, stream=on_stream,
        current_stream=lambda: Stream.current,
        synchronize=lambda: machine.wait(machine.given),
        set_device=lambda index: None,
        device_count=lambda: 1, current_device=lambda: 0,
        get_device_name=lambda index=0: "Ascend910B3",
        mem_get_info=lambda index=0: (machine.total - machine.used, machine.total),
        memory_reserved=lambda: machine.used,
        max_memory_reserved=lambda: machine.peak,
        reset_peak_memory_stats=_reset_peak,
        empty_cache=lambda: None, host_empty_cache=lambda: None,
        is_available=lambda: True, is_initialized=lambda: True,
        manual_seed_all=lambda seed: None,
    )  # fmt: skip
    unknown = {name for name in vars(module) if not name.startswith("_")}
    unknown -= public_names("npu/__init__.py")
    if unknown:
        raise NPUError(f"torch.npu of the wheel has no {', '.join(sorted(unknown))}")
    module._is_in_bad_fork = lambda: False  # type: ignore[attr-defined]
    return module


def _reset_peak() -> None:
    machine.peak = machine.used


def install(folder: Path) -> list[Any]:
    """Put the simulation in the place of torch_npu. Returns what must stay alive."""
    module = _module()
    root = Stub("torch_npu")
    root.__version__ = wheel_version()
    root.__spec__ = ModuleSpec("torch_npu", None)  # others ask whether there is a torch_npu
    c_part = types.ModuleType("torch_npu._C")
    vars(c_part).update(
        _NPUStreamBase=object,
        _NPUGraph=CapturedGraph,
        _distributed_c10d=types.SimpleNamespace(ProcessGroupHCCL=ProcessGroupHCCL),
        _weak_ref_tensor=lambda tensor: tensor,
        _graph_pool_handle=lambda: object(),
        _npu_isCurrentStreamCapturing=any_capture,
        _graph_task_group_begin=group_begin,
        _graph_task_group_end=group_end,
        _graph_task_update_begin=update_begin,
        _graph_task_update_end=update_end,
        _super_kernel_scope_begin=None,
        _super_kernel_scope_end=None,
    )
    errors = types.SimpleNamespace(ErrCode=Stub("ErrCode"), pta_error=str, ops_error=lambda _: "")
    stubs = {
        "torch_npu": root,
        "torch_npu._C": c_part,
        "torch_npu.npu": module,
        "torch_npu.npu.utils": types.SimpleNamespace(
            _dummy_type=None, _is_gte_cann_version=lambda _: True, get_cann_version=lambda: "9.0.0"
        ),
        "torch_npu.npu._backends": types.SimpleNamespace(get_soc_version=lambda: 220),
        "torch_npu.utils": Stub("torch_npu.utils"),
        "torch_npu.utils._error_code": errors,
        "torch_npu._compiler": Stub("torch_npu._compiler"),
        "torch_npu._compiler._config": types.SimpleNamespace(force_npugraph_gc=False),
    }
    sys.modules.update(stubs)  # type: ignore[arg-type]
    module.__path__ = []
    root._C, root.npu = c_part, module
    schemas = define_schemas(folder)
    metas, dtypes = register_metas(folder)
    vars(root).update(dtypes)
    kept = [schemas, metas, *register(module)]
    _serve_operators(root)
    handlers = "torch_npu.npu._npugraph_handlers"
    sys.modules[handlers] = package = types.ModuleType(handlers)
    package.__path__ = []
    for part in ("npugraph_handler", "ifa_handler"):
        execute(folder, f"{handlers}.{part}")
    graphs = execute(folder, "torch_npu.npu.graphs")
    for name in ("NPUGraph", "graph", "graph_pool_handle"):
        setattr(module, name, getattr(graphs, name))
    torch.npu = module  # type: ignore[attr-defined]
    machine.check, machine.compute = check, COMPUTE
    _allow_pinned_memory()
    return kept


def _serve_operators(root: Stub) -> None:
    """torch_npu.npu_... are the operators, as in the real package."""

    def find(name: str) -> Any:
        if name.startswith(("npu_", "_npu_")):
            return getattr(torch.ops.npu, name)
        raise AttributeError(name)

    root.__class__ = type(
        "TorchNPU", (types.ModuleType,), {"__getattr__": lambda _, name: find(name)}
    )


def _allow_pinned_memory() -> None:
    """Ordinary memory plays pinned memory: torch has an allocator of it for real drivers only."""
    empty = torch.empty

    def allowed(*size: Any, pin_memory: bool = False, **options: Any) -> Tensor:
        found: Tensor = empty(*size, **options)
        if pin_memory:
            poison(found)
        return found

    torch.empty = allowed  # type: ignore[assignment]
