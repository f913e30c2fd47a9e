"""How large the KV cache may be: measured on the device, not guessed from constants.

A model with recurrent states has slots for them too: enough for what runs and as much again as cache,
if that leaves the pages half of the memory.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from inarch.errors import OutOfMemoryError
from inarch.hal.device import Device
from inarch.hal.kv import KVLayout

PROBE_TOKENS, PROBE_SEQS = 64, 8  # the size of the first measured step
# Beyond this many states per running request a cache of them would seldom be asked.
USEFUL_STATES = 4
PATIENCE_S = 10.0  # the full step is measured if it should take less than this


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes of the device, and what each part is for."""

    total: int
    share: float  # of the total, that the engine may use
    weights: int
    activations: int  # measured: the peak of a step
    kept: int  # by captured steps, and by attention
    sampling: int  # reserved for penalties
    page_bytes: int
    pages: int  # the null page included
    limited_by: str
    slot_bytes: int = 0  # of recurrent states
    slots: int = 0  # the null slot included

    @property
    def kv(self) -> int:
        return self.pages * self.page_bytes

    @property
    def states(self) -> int:
        return self.slots * self.slot_bytes

    def as_dict(self) -> dict[str, int]:
        parts = {
            name: getattr(self, name)
            for name in ("weights", "activations", "kept", "sampling", "kv", "states")
        }
        return {"total": self.total, "usable": int(self.total * self.share), **parts}


RunStep = Callable[[int, int, bool], None]  # tokens, sequences, behind a long prefix


def measure_activations(device: Device, run_step: RunStep, max_tokens: int, max_seqs: int) -> int:
    """The most memory a step of up to these sizes takes beyond weights and KV, in bytes.

    Measured at the full size, unless that would make the start slow: then at small ones, from which
    what a token and what a sampled sequence takes are scaled up apart. A long prefix is added once.
    """
    tokens, seqs = min(PROBE_TOKENS, max_tokens), min(PROBE_SEQS, max_seqs)
    run_step(tokens, seqs, True)  # the first step also loads and compiles things
    seconds, _ = _measure(device, run_step, tokens, seqs, True)
    if seconds * max_tokens / tokens < PATIENCE_S:
        return _measure(device, run_step, max_tokens, max_seqs, True)[1]
    one, several, long = (
        _measure(device, run_step, tokens, count, prefix)[1]
        for count, prefix in ((1, False), (seqs, False), (1, True))
    )
    a_sequence = max(several - one, 0) / max(seqs - 1, 1)
    a_prefix = max(long - one, 0)
    return math.ceil(one * max_tokens / tokens + a_sequence * max_seqs + a_prefix)


def _measure(
    device: Device, run_step: RunStep, tokens: int, seqs: int, prefix: bool
) -> tuple[float, int]:
    device.synchronize()
    device.reset_peak_memory()
    before = device.memory().used
    started = time.perf_counter()
    run_step(tokens, seqs, prefix)
    device.synchronize()
    return time.perf_counter() - started, max(device.memory().peak - before, 0)


def plan_memory(
    device: Device,
    layout: KVLayout,
    *,
    share: float,
    weights: int,
    activations: int,
    kept: int,
    sampling: int,
    kv_tokens: int | None,
    most_tokens: int,
    slot_bytes: int = 0,
    running: int = 1,
    fewer: bool = False,
) -> MemoryPlan:
    """Divide the device's memory; what the other parts leave is the KV cache.

    kv_tokens: what the user asked for; most_tokens: more than this could never be used. slot_bytes:
    of a model with recurrent states; running: requests at once, or
    fewer if their states take too much. Raises OutOfMemoryError.
    """
    stats = device.memory()
    usable = min(int(stats.total * share) - stats.used, int(stats.free * share))
    left = usable - activations - kept - sampling
    wanted = kv_tokens if kv_tokens is not None else most_tokens
    asked = 1 + -(-wanted // layout.page_tokens)
    slots = 0
    if slot_bytes:
        behind = left - asked * layout.page_bytes
        room = behind if kv_tokens else max(behind, left // 2)
        slots = _slots(room, slot_bytes, running, least=1 if fewer else running)
        left -= slots * slot_bytes
    fit = max(left // layout.page_bytes, 0) if layout.page_bytes else asked
    if kv_tokens is not None and asked > fit:
        raise OutOfMemoryError(
            f"--kv-tokens {kv_tokens} needs {_gib(asked * layout.page_bytes)}, but only "
            f"{_gib(left)} are left ({_gib(stats.free)} free): lower it, or raise --memory-share"
        )
    if fit < 2:
        raise OutOfMemoryError(
            f"no memory is left for the KV cache: {_gib(stats.free)} of {_gib(stats.total)} are free "
            f"on {device.info.name}, a step needs {_gib(activations + kept)}: free memory, raise "
            "--memory-share, lower --max-step-tokens or --max-running-requests, or take a smaller "
            "model or dtype"
        )
    limited_by = "--kv-tokens" if kv_tokens is not None else "what could ever be used"
    if asked > fit:
        limited_by = f"the share of memory, {share:g}"
    return MemoryPlan(
        stats.total,
        share,
        weights,
        activations,
        kept,
        sampling,
        layout.page_bytes,
        min(asked, fit),
        limited_by,
        slot_bytes,
        slots,
    )


def _slots(room: int, slot_bytes: int, running: int, *, least: int) -> int:
    """Slots for states, the null slot included, in `room` bytes; for `least` requests at least."""
    slots = min(max(room, 0) // slot_bytes, 1 + USEFUL_STATES * running)
    if slots <= least:
        raise OutOfMemoryError(
            f"{least} requests at once have recurrent states of {_gib(least * slot_bytes)}, but "
            f"{_gib(room)} are left for them: lower --max-running-requests to {max(slots - 1, 1)}, or "
            "raise --memory-share"
        )
    return slots


def _gib(size: int) -> str:
    return f"{max(size, 0) / 2**30:.2f} GiB"
