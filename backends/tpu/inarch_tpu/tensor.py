"""A torch tensor whose values are a JAX array: how plain torch code runs as an XLA program.

Every torch operation on one is carried out on the array (see aten.py): at once where the array has
values, as a part of the program where it is a tracer (see program.py). Host tensors that meet it (a
norm's weight, a table) are brought to the device once and remembered.

An array may be

- a numpy array that nothing was computed with yet: it goes to the device with the first program that
  reads it, and slices of it cost no program;
- longer than the tensor: rows behind the tensor's are padding, so that one program serves many lengths.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch import Tensor
from torch._decomp import decomposition_table
from torch.utils.weak import WeakIdKeyDictionary

from inarch.errors import UnsupportedError
from inarch_tpu.aten import TABLE
from inarch_tpu.dtypes import narrowed, to_numpy, torch_dtype

HOST = torch.device("cpu")
DROPPED = np.iinfo(np.int32).max  # an index that no axis has
ON_NUMPY = ("slice", "select", "view", "reshape", "unsqueeze", "flatten", "squeeze")


class JaxTensor(torch.Tensor):
    """See the module. torch takes it for a tensor of the host: its memory is not torch's affair."""

    array: Any  # jax.Array, tracer or numpy array
    origin: View | None  # to torch it shares memory with another; arrays share nothing
    writes: int  # to it, so far

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(
        cls,
        array: Any,
        *,
        rows: int | None = None,
        dtype: torch.dtype | None = None,
        origin: View | None = None,
    ) -> JaxTensor:
        """rows: of the array's first axis, those that are no padding."""
        shape = tuple(array.shape) if rows is None else (rows, *array.shape[1:])
        # One kind of tensor, wherever it is made: torch makes no view of one kind in the other's place.
        with torch.inference_mode(False):
            tensor: JaxTensor = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
                cls, shape, dtype=dtype or torch_dtype(array), device=HOST
            )
        tensor.array, tensor.origin, tensor.writes = array, origin, 0
        return tensor

    @classmethod
    def __torch_dispatch__(cls, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(op, args, kwargs or {})

    def __setitem__(self, index: Any, new: Any) -> None:
        _set_item(self, index, new)

    def data_ptr(self) -> int:
        raise refuse("what asks for a tensor's address")

    def __repr__(self) -> str:
        return f"JaxTensor({list(self.shape)}, {self.dtype})"


def refuse(what: str) -> UnsupportedError:
    return UnsupportedError(
        f"{what} cannot be part of an XLA program: the tpu backend does not run this model or feature; "
        "use another backend (--backend reference runs all of them)"
    )


# ---- arrays of tensors ----


class _Tracing(threading.local):
    captured: dict[int, JaxTensor] | None = None


_tracing = _Tracing()
_on_device = WeakIdKeyDictionary()  # host tensor -> its JaxTensor


@contextlib.contextmanager
def capturing() -> Iterator[dict[int, JaxTensor]]:
    """Notes the tensors from outside whose arrays are read within, by the array's id."""
    before, _tracing.captured = _tracing.captured, {}
    try:
        yield _tracing.captured
    finally:
        _tracing.captured = before


def is_tracing() -> bool:
    return _tracing.captured is not None


def value(tensor: Tensor) -> Any:
    """The array of a tensor of either kind, without padding."""
    array = padded_value(tensor)
    return array if array.shape == tuple(tensor.shape) else array[: len(tensor)]


def padded_value(tensor: Tensor) -> Any:
    """As `value`, with the padding."""
    owner = tensor if isinstance(tensor, JaxTensor) else resident(tensor)
    if owner.origin is not None:
        owner.origin.refresh(owner)
    if isinstance(owner.array, np.ndarray):
        owner.array = _there(owner.array)
    if _tracing.captured is not None and not isinstance(owner.array, jax.core.Tracer):
        _tracing.captured[id(owner.array)] = owner
    return owner.array


def resident(tensor: Tensor, sharding: Any = None) -> JaxTensor:
    """A host tensor on the device, brought there when first asked for; sharding: as it is to lie."""
    if isinstance(tensor, JaxTensor):
        there = value(tensor)
        return JaxTensor(there if sharding is None else jax.device_put(there, sharding))
    found: JaxTensor | None = _on_device.get(tensor)
    if found is None or sharding is not None:
        array = np.array(to_numpy(tensor))
        there = _there(array) if sharding is None else jax.device_put(array, sharding)
        found = JaxTensor(there, dtype=tensor.dtype)
        _on_device[tensor] = found
    return found


def _there(array: np.ndarray) -> jax.Array:
    with jax.ensure_compile_time_eval():
        return jnp.asarray(array)


def uploaded(host: np.ndarray) -> JaxTensor:
    """On its way to the device: `host` may be changed at once."""
    own = narrowed(host)
    dtype = torch.from_numpy(np.empty(0, host.dtype)).dtype
    return JaxTensor(own.copy() if own is host else own, dtype=dtype)


def padded_rows(count: int) -> int:
    """What arrays of `count` rows are padded to: few programs then serve all counts."""
    return 1 << max(count - 1, 0).bit_length()


def padded_host(tensor: Tensor, filling: Any) -> Any:
    """The array of a tensor; one that is on the host still is padded with rows of `filling`."""
    array = tensor.array if isinstance(tensor, JaxTensor) else to_numpy(tensor)
    if not isinstance(array, np.ndarray):
        return array
    more = padded_rows(len(array)) - len(array)
    return np.pad(array, [(0, more)] + [(0, 0)] * (array.ndim - 1), constant_values=filling)


# ---- operations ----


def _run(op: Any, args: Any, kwargs: Any) -> Any:
    name = op.overloadpacket.__name__
    in_place = name.endswith("_") and not name.endswith("__")
    function = TABLE.get(name[:-1] if in_place else name)
    if function is None:
        return _taken_apart(op, args, kwargs)
    if (special := _padded_run(name, args)) is not None:
        return special
    given = {"args": args, "kwargs": kwargs}
    host = name in ON_NUMPY and isinstance(args[0].array, np.ndarray)
    arrays = _map(lambda x: x.array if host else value(x), given)
    with jax.numpy_dtype_promotion("standard"):
        out = function(*arrays["args"], **arrays["kwargs"])
    if in_place:
        return replace(args[0], out)
    shared = _shared(op, function, args, arrays)
    return _wrap(out, shared, wide=not _names_int32(given))


Shared = Callable[[int | None], "View | None"]


def _shared(op: Any, function: Callable[..., Any], args: Any, arrays: Any) -> Shared:
    """Of each of an operation's results: what torch takes it for a view of."""
    base, rest = args[0] if args else None, (arrays["args"][1:], arrays["kwargs"])
    if not isinstance(base, JaxTensor) or not any(r.alias_info for r in op._schema.returns):
        return lambda number: None

    def cut(array: Any, number: int | None) -> Any:
        out = function(array, *rest[0], **rest[1])
        return out if number is None else out[number]

    return lambda number: View(base, functools.partial(cut, number=number))


def _names_int32(given: Any) -> bool:
    """Whether torch would give int32 for it: else what is int32 for JAX is int64 for torch."""
    if isinstance(given, dict):
        return bool(given.get("out_int32")) or any(map(_names_int32, given.values()))
    if isinstance(given, list | tuple):
        return any(map(_names_int32, given))
    return given is torch.int32 or (isinstance(given, Tensor) and given.dtype == torch.int32)


def _taken_apart(op: Any, args: Any, kwargs: Any) -> Any:
    """What torch says an operation is made of."""
    try:
        made = op.decompose(*args, **kwargs)
    except NotImplementedError:
        made = NotImplemented
    if made is not NotImplemented:
        return made
    if op in decomposition_table:
        return decomposition_table[op](*args, **kwargs)
    raise refuse(f"torch's operation {op}")


def _padded_run(name: str, args: Any) -> Any:
    """The operations that leave padding where it is; None: not one of them."""
    if is_tracing() or not isinstance(args[0], JaxTensor):
        return None
    if args[0].origin is not None:
        args[0].origin.refresh(args[0])
    first = args[0].array
    if isinstance(first, np.ndarray):
        return None
    if name == "slice" and len(args) == 4 and args[1] == 0 and args[2] in (None, 0):
        count = min(args[3], len(args[0]))
        if count > 0:
            origin = View(args[0], lambda array: array[:count])
            return JaxTensor(first, rows=count, dtype=args[0].dtype, origin=origin)
    if name == "clone":
        return JaxTensor(first, rows=len(args[0]), dtype=args[0].dtype)
    if name == "index" and len(args[1]) == 1 and args[1][0].dim() == 1:
        places = padded_host(args[1][0], 0)
        rows = len(args[1][0])
        return JaxTensor(_take_rows(first, places), rows=rows, dtype=args[0].dtype)
    if name == "index_copy_" and args[1] == 0:
        return replace(
            args[0], _copy_rows(first, padded_host(args[2], DROPPED), padded_value(args[3]))
        )
    return None


@jax.jit
def _take_rows(x: Any, places: Any) -> Any:
    return x[places]


@jax.jit
def _copy_rows(x: Any, places: Any, rows: Any) -> Any:
    rows = rows.astype(x.dtype)
    count = min(len(places), len(rows))  # both are padded, maybe not equally far
    return x.at[places[:count]].set(rows[:count], mode="drop")


def replace(tensor: JaxTensor, array: Any) -> JaxTensor:
    """In place, as torch sees it."""
    if not isinstance(tensor, JaxTensor):
        raise refuse("writing values of the device to a tensor of the host")
    if is_tracing() and not isinstance(tensor.array, jax.core.Tracer):
        raise refuse("a step that writes to a tensor from outside of it")
    if tensor.origin is not None:
        tensor.origin.write(tensor, array)
    tensor.array = array.astype(tensor.array.dtype)
    tensor.writes += 1
    return tensor


class View:
    """What makes a view of its base: cut gives its array, of the base's."""

    def __init__(self, base: JaxTensor, cut: Callable[[Any], Any]) -> None:
        self._base, self._cut, self._seen = base, cut, base.writes

    def refresh(self, tensor: JaxTensor) -> None:
        """Read the base anew if it was written to."""
        if self._base.origin is not None:
            self._base.origin.refresh(self._base)
        if self._seen != self._base.writes:
            tensor.array, self._seen = self._cut(value(self._base)), self._base.writes
            tensor.writes += 1

    def write(self, tensor: JaxTensor, array: Any) -> None:
        """Write to the base what is written to the view, which must lie in one piece there."""
        shape, count = self._base.shape, self._base.numel()
        with jax.ensure_compile_time_eval():
            places = np.asarray(self._cut(np.arange(count, dtype=np.int32).reshape(shape))).ravel()
        if self._base.dtype != tensor.dtype or (np.diff(places) != 1).any():
            raise refuse("writing through a view whose elements lie apart")
        flat = jnp.asarray(value(self._base)).ravel().at[places].set(array.ravel())
        replace(self._base, flat.reshape(shape))
        self._seen = self._base.writes


def _set_item(tensor: JaxTensor, index: Any, new: Any) -> None:
    index = index if isinstance(index, tuple) else (index,)
    places = tuple(_repeated(i) if isinstance(i, Tensor) else i for i in index)
    values = _repeated(new) if isinstance(new, Tensor) and new.dim() == 1 else new
    values = value(values) if isinstance(values, Tensor) else values
    replace(tensor, jnp.asarray(value(tensor)).at[places].set(values))


def _repeated(tensor: Tensor) -> Any:
    """Padded with its own last entry, which is then written again: few programs serve all lengths."""
    array = tensor.array if isinstance(tensor, JaxTensor) else to_numpy(tensor)
    if not isinstance(array, np.ndarray) or array.ndim != 1 or not len(array):
        return value(tensor)
    return np.pad(array, (0, padded_rows(len(array)) - len(array)), mode="edge")


def _map(change: Any, given: Any) -> Any:
    if isinstance(given, Tensor):
        return change(given)
    if isinstance(given, list | tuple):
        return [_map(change, x) for x in given]
    if isinstance(given, dict):
        return {name: _map(change, x) for name, x in given.items()}
    return given


def _wrap(out: Any, shared: Shared, *, wide: bool, number: int | None = None) -> Any:
    if isinstance(out, list | tuple):
        return type(out)(_wrap(x, shared, wide=wide, number=i) for i, x in enumerate(out))
    dtype = torch.int64 if wide and out.dtype == np.int32 else None
    return JaxTensor(out, origin=shared(number), dtype=dtype)
