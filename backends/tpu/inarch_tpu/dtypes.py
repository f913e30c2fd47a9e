"""Dtypes of torch, of JAX and of numpy.

XLA computes in 32 bits: what torch calls int64 (ids, positions, indices) is int32 there, float64 is
float32. Token ids and slots are far below 2**31.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import torch
from torch import Tensor

TO_JAX = {
    torch.bool: jnp.bool_,
    torch.uint8: jnp.uint8,
    torch.int8: jnp.int8,
    torch.int16: jnp.int16,
    torch.int32: jnp.int32,
    torch.int64: jnp.int32,
    torch.float16: jnp.float16,
    torch.bfloat16: jnp.bfloat16,
    torch.float32: jnp.float32,
    torch.float64: jnp.float32,
    torch.float8_e4m3fn: jnp.float8_e4m3fn,
}
TO_TORCH = {
    jnp.dtype(to): of for of, to in TO_JAX.items() if of not in (torch.int64, torch.float64)
}
# Dtypes that numpy gets from ml_dtypes: torch hands them over as integers of the same size.
AS_BYTES = {
    torch.bfloat16: (torch.int16, np.dtype(ml_dtypes.bfloat16)),
    torch.float8_e4m3fn: (torch.uint8, np.dtype(ml_dtypes.float8_e4m3fn)),
}
NARROWED = {np.dtype("int64"): np.int32, np.dtype("float64"): np.float32}


def jax_dtype(dtype: torch.dtype) -> Any:
    return jnp.dtype(TO_JAX[dtype])


def torch_dtype(array: Any) -> torch.dtype:
    return TO_TORCH[jnp.dtype(array.dtype)]


def narrowed(array: np.ndarray) -> np.ndarray:
    """The same numbers in what XLA takes."""
    wanted = NARROWED.get(array.dtype)
    return array if wanted is None else array.astype(wanted)


def to_numpy(tensor: Tensor) -> np.ndarray:
    """A host tensor's values, in the dtype that JAX has for them; may share its memory."""
    tensor = tensor.detach().contiguous()
    if tensor.dtype in AS_BYTES:
        stored, dtype = AS_BYTES[tensor.dtype]
        array: np.ndarray = tensor.view(stored).numpy().view(dtype)
        return array
    return narrowed(tensor.numpy())


def from_numpy(array: np.ndarray) -> Tensor:
    """The inverse of `to_numpy`; a copy."""
    for dtype, (stored, name) in AS_BYTES.items():
        if array.dtype == name:
            raw = np.array(array).view(str(stored).removeprefix("torch."))
            return torch.from_numpy(raw).view(dtype)
    return torch.from_numpy(np.array(array))


def from_jax(array: jax.Array) -> Tensor:
    """A copy on the host."""
    return from_numpy(np.asarray(array))
