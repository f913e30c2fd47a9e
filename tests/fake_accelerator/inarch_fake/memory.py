"""Device memory that the host cannot touch, and a recorder of the work given to it.

torch keeps a device type for backends that torch does not know. Here it is implemented in Python:
a DeviceTensor hides an ordinary CPU tensor, and `launch` runs every operation on what is hidden.
What would go unnoticed on a CPU then fails as it does on an accelerator, or worse:

- host and device tensors cannot be mixed, and no Python code can see a device tensor's values;
- fresh memory is poisoned: NaN, or the lowest integer;
- memory is limited, and more than that is not given;
- between `Recorder.__enter__` and `__exit__` all work is recorded and can be replayed: on the same
  addresses, with the numbers that Python had at the time, and without running any Python of the
  core again.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

aten = torch.ops.aten
CPU = torch.device("cpu")
_setup_privateuseone_for_python_backend("fake")
DEVICE = torch.device("fake:0")

FRESH = (
    aten.empty.memory_format,
    aten.empty_strided.default,
    aten.empty_like.default,
    aten.new_empty.default,
    aten.new_empty_strided.default,
)
TO_DEVICE = (aten._to_copy.default, aten.copy_.default)
SHAPED_BY_VALUES = (aten.nonzero.default, aten.masked_select.default, aten.bincount.default)
INDEXING = (aten.index.Tensor, aten.index_put_.default, aten.index_put.default)


class FakeDeviceError(Exception):
    """The core broke a rule of the contract."""


class Usage:
    """Bytes of device memory held by live tensors."""

    limit = 1 << 30
    used = 0
    peak = 0

    @classmethod
    def take(cls, tensor: DeviceTensor) -> None:
        size = tensor.raw.untyped_storage().nbytes()
        if cls.used + size > cls.limit:
            raise torch.OutOfMemoryError(f"out of memory: {cls.used} + {size} of {cls.limit} bytes")
        cls.used += size
        cls.peak = max(cls.peak, cls.used)
        weakref.finalize(tensor, cls.give_back, size).atexit = False

    @classmethod
    def give_back(cls, size: int) -> None:
        cls.used -= size


class DeviceTensor(torch.Tensor):
    """Shape and dtype are known to the host; the values, in `raw`, are for `launch` alone."""

    raw: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, raw: Tensor) -> DeviceTensor:
        tensor: DeviceTensor = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, raw.shape, raw.stride(), raw.storage_offset(), dtype=raw.dtype, device=DEVICE
        )
        tensor.raw = raw
        return tensor

    @classmethod
    def __torch_dispatch__(cls, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return launch(op, *args, **(kwargs or {}))

    def __repr__(self) -> str:
        return f"DeviceTensor({list(self.shape)}, {self.dtype})"


class Recorder:
    """A captured graph: `with recorder:` records what is launched, `replay` does it again."""

    active: Recorder | None = None

    def __init__(self) -> None:
        self._work: list[tuple[Callable[..., Any], Any, Any, list[Tensor]]] = []

    def __enter__(self) -> None:
        Recorder.active = self

    def __exit__(self, *error: object) -> None:
        Recorder.active = None

    def record(self, op: Callable[..., Any], args: Any, kwargs: Any, out: Any) -> None:
        self._work.append((op, args, kwargs, _tensors(out)))

    def replay(self) -> None:
        for op, args, kwargs, addresses in self._work:
            for address, result in zip(addresses, _tensors(op(*args, **kwargs)), strict=True):
                if address.data_ptr() != result.data_ptr():  # neither a view nor in place
                    address.copy_(result)


def launch(op: Any, *args: Any, **kwargs: Any) -> Any:
    """Run an operation on hidden tensors; the one way in which device memory is used."""
    # Whether the core is in inference mode is its own affair: all device tensors are plain ones.
    with torch.inference_mode(False):
        return _launch(op, args, kwargs)


def _launch(op: Any, args: Any, kwargs: Any) -> Any:
    leaves = list(_leaves((*args, *kwargs.values())))
    given = {id(x.raw): x for x in leaves if isinstance(x, DeviceTensor)}
    _check(op, args, leaves, bool(given))
    args = _map(_uncover, args)
    kwargs = {name: _map(_uncover, value) for name, value in kwargs.items()}
    out = op(*args, **kwargs)
    if op in FRESH:
        poison(out)
    if given and isinstance(out, bool | int | float):
        raise FakeDeviceError(f"a device tensor was read by the host: {op} returned {out}")
    if Recorder.active is not None:
        Recorder.active.record(op, args, kwargs, out)
    storages = {x.raw.untyped_storage().data_ptr() for x in given.values()}
    return _map(lambda x: _cover(x, given, storages), out)


def _check(op: Any, args: Any, leaves: list[Any], on_device: bool) -> None:
    if on_device and any(isinstance(x, torch.device) and x != DEVICE for x in leaves):
        raise FakeDeviceError("a device tensor was copied to the host without Device.download")
    if op is aten.copy_.default and not isinstance(args[0], DeviceTensor):
        raise FakeDeviceError("a device tensor was copied to the host without Device.download")
    host = [x for x in leaves if isinstance(x, Tensor) and not isinstance(x, DeviceTensor)]
    if any(x.dim() > 0 for x in host) and (op not in TO_DEVICE or Recorder.active is not None):
        raise FakeDeviceError(f"{op} was given host memory: Device.upload comes before a step")
    if op in SHAPED_BY_VALUES:
        raise FakeDeviceError(f"{op} makes a shape depend on values: the device would have to wait")
    if op in INDEXING and any(x is not None and x.dtype == torch.bool for x in args[1]):
        raise FakeDeviceError("a boolean index makes a shape depend on values")


def _uncover(x: Any) -> Any:
    if isinstance(x, DeviceTensor):
        return x.raw
    return CPU if isinstance(x, torch.device) else x


def _cover(x: Any, given: dict[int, DeviceTensor], storages: set[int]) -> Any:
    """The wrapper of a result: the one it came in with, if the operation was in place."""
    if not isinstance(x, Tensor) or id(x) in given:
        return given.get(id(x), x)
    tensor = DeviceTensor(x)
    if x.untyped_storage().data_ptr() not in storages:
        Usage.take(tensor)
    return tensor


def _map(change: Callable[[Any], Any], value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)([_map(change, x) for x in value])
    return change(value)


def _leaves(value: Any) -> Iterator[Any]:
    for x in value:
        if isinstance(x, list | tuple):
            yield from _leaves(x)
        else:
            yield x


def _tensors(out: Any) -> list[Tensor]:
    return [x for x in _leaves((out,)) if isinstance(x, Tensor)]


def poison(raw: Tensor) -> None:
    if raw.dtype.is_floating_point:
        raw.fill_(torch.nan)
    elif raw.dtype != torch.bool:
        raw.fill_(torch.iinfo(raw.dtype).min)


# Factories get no tensor that could bring them here: the device argument does.
_library = torch.library.Library("_", "IMPL")
_library.fallback(launch, "PrivateUse1")
# torch makes these from an empty tensor that it resizes, which a wrapper cannot follow.
_factories = torch.library.Library("aten", "IMPL")
for _name in ("arange", "arange.start", "arange.start_step"):
    _overload = getattr(aten.arange, _name.partition(".")[2] or "default")
    _factories.impl(
        _name, lambda *args, _op=_overload, **kwargs: launch(_op, *args, **kwargs), "PrivateUse1"
    )
