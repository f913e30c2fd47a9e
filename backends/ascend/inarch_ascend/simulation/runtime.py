"""torch.npu: streams, events and graphs, as far as the backend uses them.

The C part is played here; what is Python in the wheel, `NPUGraph`, `graph` and the handlers that record
and update attention, is the wheel's own. Graphs keep their order: a task group waits for its event,
and its tasks may only change when the replay before is known to be done.
"""

from __future__ import annotations

import contextlib
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inarch_ascend.simulation.checking import check
from inarch_ascend.simulation.collectives import ProcessGroupHCCL
from inarch_ascend.simulation.memory import (
    NPUError,
    NPUTensor,
    machine,
    poison,
    register,
    run,
    tensors_and_devices,
)
from inarch_ascend.simulation.operators import COMPUTE
from inarch_ascend.simulation.wheel import (
    Stub,
    define_schemas,
    execute,
    public_names,
    register_metas,
    wheel_version,
)


class Stream:
    """Work runs when it is given; a stream only tells which is which."""

    current: Stream

    def __init__(self, device: object = None, priority: int = 0) -> None:
        pass

    def synchronize(self) -> None:
        machine.wait(machine.given)

    def wait_event(self, event: Event) -> None:
        machine.wait(event.number)

    def wait_stream(self, other: Stream) -> None:
        machine.wait(machine.given)


Stream.current = Stream()


class Event:
    def __init__(self, enable_timing: bool = False) -> None:
        self.number, self._asked = 0, 0

    def record(self, stream: Stream | None = None) -> None:
        self.number = machine.given

    def wait(self, stream: Stream | None = None) -> None:
        (stream or Stream.current).wait_event(self)

    def query(self) -> bool:
        """Done, but not when it is first asked."""
        self._asked += 1
        if self._asked > 1:
            machine.wait(self.number)
        return machine.done >= self.number

    def synchronize(self) -> None:
        machine.wait(self.number)


class ExternalEvent:
    """What a captured task waits for, and an update sets."""

    def __init__(self) -> None:
        self.is_set = False

    def wait(self, stream: Stream) -> None:
        capturing().items.append(("wait", self))

    def reset(self, stream: Stream) -> None:
        capturing().items.append(("reset", self))

    def record(self, stream: Stream) -> None:
        self.is_set = True
        if isinstance(machine.waiting, CapturedGraph):
            machine.waiting.go_on()


@dataclass(eq=False)
class Call:
    """A captured call, and where its results lie."""

    op: Any
    args: Any
    kwargs: Any
    out: list[Tensor]
    graph: CapturedGraph

    def again(self) -> None:
        found = tensors_and_devices((run(self.op, self.args, self.kwargs),))
        for place, result in zip(self.out, found, strict=True):
            if place.data_ptr() != result.data_ptr():  # neither a view nor in place
                place.copy_(result)


_capturing: list[CapturedGraph] = []


def capturing() -> CapturedGraph:
    if not _capturing:
        raise NPUError("no graph is captured now")
    return _capturing[0]


@dataclass(eq=False)
class CapturedGraph:
    """The C part of NPUGraph."""

    items: list[tuple[str, Any]] = field(default_factory=list)
    group: list[Call] | None = None
    number: int = 0  # of the last work of its last replay
    running: Iterator[None] | None = None

    def __new__(cls) -> CapturedGraph:
        return object.__new__(cls)

    def capture_begin(self, pool: object, capture_error_mode: str, report_shape: bool) -> None:
        if _capturing:
            raise NPUError("a graph is captured already")
        _capturing.append(self)
        machine.recording = self._record

    def capture_end(self) -> None:
        _capturing.remove(self)
        machine.recording = None
        poison_outputs(self.items)

    def _record(self, op: Any, args: Any, kwargs: Any, out: Any) -> None:
        call = Call(op, args, kwargs, list(tensors_and_devices((out,))), self)
        self.items.append(("call", call))
        if self.group is not None:
            self.group.append(call)

    def replay(self) -> None:
        if machine.waiting is not None:
            raise NPUError("a graph is replayed behind one that waits for an update")
        self.running = self._work()
        self.go_on()

    def go_on(self) -> None:
        """Run up to the next event that is not set."""
        assert self.running is not None
        machine.waiting = None
        with torch.inference_mode(False):
            for _ in self.running:
                machine.waiting = self
                return
        self.running = None

    def _work(self) -> Iterator[None]:
        for kind, what in self.items:
            while kind == "wait" and not what.is_set:
                yield
            if kind == "reset":
                what.is_set = False
            if kind == "call":
                machine.given += 1
                what.again()
        self.number = machine.given

    def reset(self) -> None:
        self.items.clear()

    def pool(self) -> object:
        return ()


def poison_outputs(items: list[tuple[str, Any]]) -> None:
    """Work that is captured is not done: nothing may be read of it before the first replay."""
    for kind, call in items:
        if kind == "call" and call.op.namespace == "npu":
            for place in call.out:
                if place.dtype.is_floating_point and not _is_argument(place, call):
                    poison(place)


def _is_argument(place: Tensor, call: Call) -> bool:
    given = tensors_and_devices((call.args, {k: v for k, v in call.kwargs.items() if k != "out"}))
    return any(
        isinstance(x, Tensor)
        and x.untyped_storage().data_ptr() == place.untyped_storage().data_ptr()
        for x in given
    )


# ---- task groups ----


def group_begin(stream: Stream) -> None:
    capturing().group = []


def group_end(stream: Stream) -> list[Call]:
    graph = capturing()
    handle, graph.group = graph.group, None
    assert handle is not None
    return handle


def update_begin(stream: Stream, handle: list[Call]) -> None:
    (call,) = handle
    if call.graph.number > machine.done:
        raise NPUError("a graph is updated while its last replay may still run")

    def replace(op: Any, args: Any, kwargs: Any) -> Any:
        if op is not call.op:
            raise NPUError(f"an update of {call.op} by {op}")
        call.args, call.kwargs = args, kwargs
        return tuple(NPUTensor(x) for x in kwargs["out"])

    machine.intercept = replace


def update_end(stream: Stream) -> None:
    machine.intercept = None


# ---- the modules ----


@contextlib.contextmanager
def on_stream(stream: Stream) -> Iterator[None]:
    before, Stream.current = Stream.current, stream
    yield
    Stream.current = before


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
        _npu_isCurrentStreamCapturing=lambda: bool(_capturing),
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
