"""What the entry point names: how any third party brings hardware to Inarch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from inarch.hookspecs import hookimpl

if TYPE_CHECKING:
    from inarch.hal.backend import Backend

INARCH_API = (1, 0)


@hookimpl
def inarch_backends() -> Sequence[Backend]:
    from inarch_fake.backend import FakeBackend

    return [FakeBackend()]
