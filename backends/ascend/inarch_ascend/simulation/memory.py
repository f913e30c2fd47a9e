"""The NPU's memory, which the host cannot touch, and the order of its work.

torch keeps a device type for backends that it does not know; here it is called "npu" and implemented
in Python. An NPUTensor hides a CPU tensor, and `launch` runs every operation on what is hidden. What
would go unnoticed on a CPU fails: tensors of host and device together, values that Python looks at,
fresh memory that is read, and a copy to the host that is read before it has arrived.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

aten = torch.ops.aten
CPU = torch.device("cpu")
FRESH = (
    aten.empty.memory_format,
    aten.empty_strided.default,
    aten.empty_like.default,
    aten.new_empty.default,
    aten.new_empty_strided.default,
)
SHAPED_BY_VALUES = (aten.nonzero.default, aten.masked_select.default, aten.bincount.default)


class NPUError(Exception):
    """The backend or the core broke a rule of the hardware or of torch-npu's documentation."""


@dataclass
class Machine:
    """One NPU: its memory, and how far its work is known to be done.

    Work is numbered as it is given. done: up to where the host has waited for it. arriving: copies
    to the host under way (number, target, values). intercept: takes a call instead of running it.
    recording: is told of every call. waiting: a graph that waits for an update. check: refuses a
    wrong call. compute: our arithmetic of the NPU's own operators, by name.
    """

    total: int = 1 << 30
    used: int = 0
    peak: int = 0
    given: int = 0
    done: int = 0
    arriving: list[tuple[int, Tensor, Tensor]] = field(default_factory=list)
    intercept: Callable[[Any, Any, Any], Any] | None = None
    recording: Callable[[Any, Any, Any, Any], None] | None = None
    waiting: object | None = None
    check: Callable[[Any, Any, Any], Callable[[Any], None]] | None = None
    compute: dict[str, Callable[..., Any]] = field(default_factory=dict)

    def wait(self, number: int) -> None:
        """The host waits until work `number` is done: what was copied by then has arrived."""
        if self.waiting is not None:
            raise NPUError("the host waits for a graph that waits for an update: both forever")
        self.done = max(self.done, number)
        with torch.inference_mode():  # the targets may be its tensors
            for due, target, values in self.arriving:
                if due <= self.done:
                    target.copy_(values)
        self.arriving = [copy for copy in self.arriving if copy[0] > self.done]

    def take(self, tensor: NPUTensor) -> None:
        size = tensor.raw.untyped_storage().nbytes()
        if self.used + size > self.total:
            raise torch.OutOfMemoryError(f"NPU out of memory: {self.used} + {size} bytes")
        self.used += size
        self.peak = max(self.peak, self.used)
        weakref.finalize(tensor, self._give_back, size).atexit = False

    def _give_back(self, size: int) -> None:
        self.used -= size


machine = Machine()


class NPUTensor(torch.Tensor):
    """Shape and dtype are known to the host; the values, in `raw`, are for `launch` alone."""

    raw: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, raw: Tensor) -> NPUTensor:
        tensor: NPUTensor = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, raw.shape, raw.stride(), raw.storage_offset(), dtype=raw.dtype, device="npu:0"
        )
        tensor.raw = raw
        return tensor

    @classmethod
    def __torch_dispatch__(cls, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return launch(op, *args, **(kwargs or {}))

    def __repr__(self) -> str:
        return f"NPUTensor({list(self.shape)}, {self.dtype})"


def launch(op: Any, *args: Any, **kwargs: Any) -> Any:
    """Give work to the NPU; the one way in which its memory is used."""
    with torch.inference_mode(False):
        return _launch(op, args, kwargs)


def _launch(op: Any, args: Any, kwargs: Any) -> Any:
    leaves = list(tensors_and_devices((args, kwargs)))
    given = {id(x.raw): x for x in leaves if isinstance(x, NPUTensor)}
    if op is aten.copy_.default and not isinstance(args[0], NPUTensor):
        return _to_host(args[0], args[1])
    if op.name().startswith(("aten::to.", "aten::_to_copy")) and CPU in leaves:
        machine.wait(machine.given)
        return op(*uncovered(args), **kwargs).clone()
    _forbid(op, args, leaves, given)
    raw_args, raw_kwargs = uncovered(args), uncovered(kwargs)
    verify = machine.check(op, raw_args, raw_kwargs) if machine.check else None
    if machine.intercept is not None:
        return machine.intercept(op, raw_args, raw_kwargs)
    if machine.waiting is not None:
        raise NPUError(f"{op} was given behind a graph that waits for an update")
    machine.given += 1
    out = run(op, raw_args, raw_kwargs)
    if verify is not None:
        verify(out)
    if op in FRESH:
        poison(out)
    if given and isinstance(out, bool | int | float):
        raise NPUError(f"the host looked at a value of the NPU: {op} returned {out}")
    if machine.recording is not None:
        machine.recording(op, raw_args, raw_kwargs, out)
    storages = {x.raw.untyped_storage().data_ptr() for x in given.values()}
    return _covered(out, given, storages)


def run(op: Any, args: Any, kwargs: Any) -> Any:
    """Compute: what the NPU adds to torch by our own functions, the rest by torch's for the CPU."""
    if op.namespace != "npu":
        return op(*args, **kwargs)
    name = op.name().removeprefix("npu::")
    if name not in machine.compute:
        raise NPUError(f"there is no computation of {name} here")
    return machine.compute[name](*args, **kwargs)


def _to_host(target: Tensor, source: NPUTensor) -> Tensor:
    machine.given += 1
    machine.arriving.append((machine.given, target, source.raw.clone()))
    poison(target)
    return target


def _forbid(op: Any, args: Any, leaves: list[Any], given: dict[int, NPUTensor]) -> None:
    host = [x for x in leaves if isinstance(x, Tensor) and not isinstance(x, NPUTensor)]
    copies = op in (aten._to_copy.default, aten.copy_.default)
    if any(x.dim() > 0 for x in host) and (not copies or machine.recording is not None):
        raise NPUError(f"{op} was given memory of the host")
    if op in SHAPED_BY_VALUES:
        raise NPUError(f"{op} makes a shape depend on values: the NPU would have to wait")
    if op in (aten.index.Tensor, aten.index_put_.default, aten.index_put.default) and any(
        x is not None and x.dtype == torch.bool for x in args[1]
    ):
        raise NPUError("a boolean index makes a shape depend on values")


def uncovered(value: Any) -> Any:
    """The same with CPU tensors, and with the CPU where the NPU is named."""
    if isinstance(value, NPUTensor):
        return value.raw
    if isinstance(value, torch.device):
        return CPU
    if isinstance(value, list | tuple):
        return type(value)(uncovered(x) for x in value)
    if isinstance(value, dict):
        return {name: uncovered(x) for name, x in value.items()}
    return value


def _covered(value: Any, given: dict[int, NPUTensor], storages: set[int]) -> Any:
    """Results as the host sees them: the tensor it gave, where an operation was in place."""
    if isinstance(value, list | tuple):
        return type(value)(_covered(x, given, storages) for x in value)
    if not isinstance(value, Tensor) or id(value) in given:
        return given.get(id(value), value)
    tensor = NPUTensor(value)
    if value.untyped_storage().data_ptr() not in storages:
        machine.take(tensor)
    return tensor


def tensors_and_devices(value: Any) -> Iterator[Any]:
    if isinstance(value, list | tuple):
        for x in value:
            yield from tensors_and_devices(x)
    elif isinstance(value, dict):
        yield from tensors_and_devices(tuple(value.values()))
    elif isinstance(value, Tensor | torch.device):
        yield value


def poison(raw: Tensor) -> None:
    if raw.dtype.is_floating_point:
        raw.fill_(torch.nan)
    elif raw.dtype != torch.bool:
        raw.fill_(torch.iinfo(raw.dtype).min)


def register(module: object) -> list[torch.library.Library]:
    """Make torch know the device type "npu", with `module` as torch.npu."""
    _setup_privateuseone_for_python_backend("npu", backend_module=module)
    # Factories get no tensor that could bring them here: the device argument does.
    everything = torch.library.Library("_", "IMPL")
    everything.fallback(launch, "PrivateUse1")
    factories = torch.library.Library("aten", "IMPL")
    for name in ("arange", "arange.start", "arange.start_step"):
        # torch makes these from an empty tensor that it resizes, which a wrapper cannot follow.
        overload = getattr(aten.arange, name.partition(".")[2] or "default")
        factories.impl(
            name, lambda *args, _op=overload, **kwargs: launch(_op, *args, **kwargs), "PrivateUse1"
        )
    return [everything, factories]
