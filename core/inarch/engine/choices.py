"""What the configuration leaves open, decided from the model and the device, with reasons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from inarch.config import EngineConfig
from inarch.errors import ConfigError
from inarch.hal.device import Device
from inarch.hal.support import no
from inarch.models.checkpoint import Checkpoint
from inarch.models.model import Blueprint

DEFAULT_PAGE_TOKENS = 16
KV_DTYPES = {"fp8": torch.float8_e4m3fn}  # what --kv-dtype calls them


@dataclass(frozen=True)
class Choices:
    """What the configuration leaves open, decided."""

    dtype: torch.dtype
    kv_dtype: torch.dtype
    page_tokens: int
    context: int  # tokens
    reasons: Mapping[str, str]


def choose(
    config: EngineConfig, checkpoint: Checkpoint, blueprint: Blueprint, device: Device
) -> Choices:
    dtype, dtype_reason = _choose_dtype(config, checkpoint, device)
    context, context_reason = _choose_context(config, blueprint)
    page_tokens, page_reason = _choose_page(config, device)
    kv_dtype, kv_dtype_reason = _choose_kv_dtype(config, dtype, device)
    reasons = {
        "dtype": dtype_reason,
        "page size": page_reason,
        "KV dtype": kv_dtype_reason,
        "context length": context_reason,
    }
    return Choices(dtype, kv_dtype, page_tokens, context, reasons)


def _choose_dtype(
    config: EngineConfig, checkpoint: Checkpoint, device: Device
) -> tuple[torch.dtype, str]:
    offered = device.dtypes(checkpoint.stored_dtype)
    if config.dtype == "auto":
        return offered[0]
    wanted = getattr(torch, config.dtype)
    for dtype, _ in offered:
        if dtype == wanted:
            return dtype, "--dtype"
    names = ", ".join(dtype_name(dtype) for dtype, _ in offered)
    raise ConfigError(f"--dtype {config.dtype}: {device.info.name} computes in {names}")


def _choose_kv_dtype(
    config: EngineConfig, compute: torch.dtype, device: Device
) -> tuple[torch.dtype, str]:
    offered = device.kv_dtypes(compute)
    if config.kv_dtype == "auto":
        return offered[0][0], offered[0][1].why
    wanted = KV_DTYPES[config.kv_dtype]
    found = dict(offered).get(wanted, no("this backend has no pages for it"))
    if found:
        return wanted, "--kv-dtype"
    can = ", ".join(dtype_name(dtype) for dtype, support in offered if support)
    raise ConfigError(
        f"--kv-dtype {config.kv_dtype}: {device.info.name} keeps K and V in {can}, not in "
        f"{dtype_name(wanted)}: {found.why}; leave the option out"
    )


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _choose_context(config: EngineConfig, blueprint: Blueprint) -> tuple[int, str]:
    own = blueprint.context_length
    if config.context_length is None:
        return own, "the model's own"
    if config.context_length > own:
        raise ConfigError(
            f"--context-length {config.context_length} exceeds the {own} positions of the model"
        )
    return config.context_length, "--context-length"


def _choose_page(config: EngineConfig, device: Device) -> tuple[int, str]:
    offered = device.page_tokens()
    if config.page_size is None:
        return offered[0] if offered else (DEFAULT_PAGE_TOKENS, "the default")
    sizes = [size for size, _ in offered]
    if offered and config.page_size not in sizes:
        raise ConfigError(
            f"--page-size {config.page_size}: {device.info.name} has pages of "
            f"{', '.join(map(str, sizes))} tokens"
        )
    return config.page_size, "--page-size"
