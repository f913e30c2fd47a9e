"""Copies between host and device: what the host may change at once, and what order is kept."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from inarch.conformance.case import Case, generator, require
from inarch.conformance.subject import Subject

DTYPES = ("uint8", "bool", "int32", "int64", "float32", "float64")


def cases(subject: Subject) -> Iterator[Case]:
    for name, check in CHECKS.items():
        yield Case(subject.level, "transfers", name, functools.partial(check, subject))


def facts(subject: Subject) -> Iterator[tuple[str, Mapping[str, Any]]]:
    return iter(())


def _round_trip(subject: Subject) -> str:
    """Every dtype that the core uploads, of any shape, an empty one too."""
    rng = generator("transfers")
    for dtype in DTYPES:
        for shape in ((5,), (3, 7), (0,), (1, 0, 2), (2, 3, 4)):
            host = (rng.standard_normal(shape) * 40).astype(dtype)
            there = subject.device.upload(host)
            require(tuple(there.shape) == shape, f"{shape} of {dtype} became {tuple(there.shape)}")
            if dtype == "float64":
                continue  # goes up; nothing of it comes down
            back = subject.device.download(there).wait()
            require(back.dtype == host.dtype, f"{dtype} came back as {back.dtype}")
            require(np.array_equal(back, host), f"{shape} of {dtype} came back changed")
    return ""


def _host_may_change(subject: Subject) -> str:
    host = np.arange(1 << 16, dtype=np.float32)
    there = subject.device.upload(host)
    host.fill(-1)
    back = subject.device.download(there).wait()
    require(bool((back == np.arange(1 << 16)).all()), "upload() still read the host's array later")
    return ""


def _in_order(subject: Subject) -> str:
    """A download gives what was there when it was begun, however often it is waited for."""
    there = subject.device.upload(np.zeros(1 << 14, np.float32))
    with torch.inference_mode():
        transfers = []
        for value in range(1, 5):
            there.fill_(value)
            transfers.append(subject.device.download(there))
        there.fill_(99)
    found = [(float(t.wait().min()), float(t.wait().max())) for t in transfers]
    right = [(float(v), float(v)) for v in range(1, 5)]
    require(found == right, f"downloads of 1, 2, 3 and 4 gave {found}")
    require(all(t.ready() for t in transfers), "a transfer that was waited for is not ready()")
    subject.device.synchronize()
    return ""


CHECKS: dict[str, Callable[[Subject], str]] = {
    "round-trip": _round_trip,
    "host-may-change": _host_may_change,
    "in-order": _in_order,
}
