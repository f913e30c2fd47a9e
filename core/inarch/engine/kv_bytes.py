"""A prefix with its KV, as bytes: how it travels from one engine to another.

The bytes are a safetensors file, so that reading them runs nothing: the tensors `tokens` int32 [N],
`k.L` and `v.L` [N, heads, dim] of each layer L in the dtype of the KV cache, and in the metadata what
must be equal on both ends. Pages are gone: each end cuts the N tokens into pages of its own size.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import msgspec
import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from inarch.errors import InvalidRequestError
from inarch.hal.kv import CanonicalPages, KVSpec

KEY = "inarch_prefix"  # of the header in the metadata of safetensors


@dataclass(frozen=True)
class Origin:
    """What both ends must have in common, or the KV of one is nothing to the other."""

    model: str  # inarch.models.fingerprint, and how weights were quantized
    dtype: torch.dtype  # computed in
    spec: KVSpec


@dataclass(frozen=True)
class Prefix:
    """The first tokens of sequences, with what was computed of them."""

    tokens: np.ndarray  # int32 [N]
    data: CanonicalPages
    is_long: bool = False  # rotated as a long sequence: see `Request.is_long`


class Header(msgspec.Struct, frozen=True):
    """What is written beside the tensors, as JSON."""

    model: str
    computed_in: str
    dtype: str
    layers: list[tuple[int, int, int]]  # kv_heads, key_dim, value_dim
    is_long: bool


def pack(prefix: Prefix, origin: Origin) -> bytes:
    tensors = {"tokens": torch.tensor(prefix.tokens)}  # a copy: the array may be read-only
    for layer, (k, v) in enumerate(prefix.data):
        tensors |= {f"k.{layer}": k.contiguous(), f"v.{layer}": v.contiguous()}
    header = msgspec.json.encode(_header(origin, is_long=prefix.is_long))
    packed: bytes = safetensors.torch.save(tensors, {KEY: header.decode()})
    return packed


def unpack(data: bytes, origin: Origin) -> Prefix:
    """Raises InvalidRequestError if the bytes are none of `pack`'s, or come from another origin."""
    try:
        tensors = safetensors.torch.load(data)
        size = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + size]).get("__metadata__") or {}
        theirs = msgspec.json.decode(metadata[KEY], type=Header)
        _check_origin(theirs, _header(origin, is_long=theirs.is_long))
        return _prefix(tensors, origin.spec, is_long=theirs.is_long)
    except (SafetensorError, ValueError, KeyError) as error:  # msgspec's are ValueErrors
        raise InvalidRequestError(
            f"these bytes hold no prefix: {type(error).__name__}: {error}"
        ) from error


def _header(origin: Origin, *, is_long: bool) -> Header:
    layers = [(h.kv_heads, h.key_dim, h.value_dim) for h in origin.spec.layers]
    computed, kept = (str(x).removeprefix("torch.") for x in (origin.dtype, origin.spec.dtype))
    return Header(origin.model, computed, kept, layers, is_long)


def _check_origin(theirs: Header, ours: Header) -> None:
    if theirs.model != ours.model:
        raise InvalidRequestError(
            f"the prefix was computed by another model (fingerprint {theirs.model}, here "
            f"{ours.model}): both engines must have loaded the same config and weights, "
            "and quantized alike"
        )
    if theirs.computed_in != ours.computed_in:
        raise InvalidRequestError(
            f"the prefix was computed in {theirs.computed_in}, and this engine computes in "
            f"{ours.computed_in}: give both engines the same --dtype"
        )
    if theirs.dtype != ours.dtype:
        raise InvalidRequestError(
            f"the prefix is kept in {theirs.dtype}, the KV cache here in {ours.dtype}, and KV is "
            "never converted: give both engines the same --kv-dtype"
        )
    if theirs.layers != ours.layers:
        raise InvalidRequestError(
            f"the prefix has {_shapes(theirs)}, the KV cache here {_shapes(ours)}: both engines must "
            "keep the same heads of every layer"
        )


def _shapes(header: Header) -> str:
    kinds = sorted({f"{heads} x ({key} + {value})" for heads, key, value in header.layers})
    return f"{len(header.layers)} layers of {' and '.join(kinds)} numbers a token"


def _prefix(tensors: dict[str, Tensor], spec: KVSpec, *, is_long: bool) -> Prefix:
    tokens = _checked(tensors["tokens"], (tensors["tokens"].numel(),), torch.int32)
    data = [
        (
            _finite(_checked(tensors[f"k.{i}"], (len(tokens), h.kv_heads, h.key_dim), spec.dtype)),
            _finite(
                _checked(tensors[f"v.{i}"], (len(tokens), h.kv_heads, h.value_dim), spec.dtype)
            ),
        )
        for i, h in enumerate(spec.layers)
    ]
    return Prefix(tokens.numpy(), data, is_long)


def _finite(tensor: Tensor) -> Tensor:
    """A NaN would outlive its prefix: once a page is given to another, 0 times it is NaN still."""
    if not bool(torch.isfinite(tensor.float()).all()):
        raise ValueError("keys or values are not finite numbers")
    return tensor


def _checked(tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    if tuple(tensor.shape) != tuple(shape) or tensor.dtype != dtype:
        raise ValueError(
            f"a tensor is {tensor.dtype} {list(tensor.shape)}, not {dtype} {list(shape)}"
        )
    return tensor
