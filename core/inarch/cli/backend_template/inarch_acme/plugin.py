"""What the entry point names. Inarch imports it on every start: it loads no library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from inarch.hookspecs import hookimpl

if TYPE_CHECKING:
    from inarch.hal.backend import Backend

INARCH_API = (1, 0)  # the plugin API that this package was written for


@hookimpl
def inarch_backends() -> Sequence[Backend]:
    from inarch_acme.backend import AcmeBackend

    return [AcmeBackend()]
