"""The null backend as a plugin, so that `inarch serve --backend null` runs on it.

Found by whoever has this folder, and metadata that names this module, on PYTHONPATH: see
bench_frontend.py. A step lasts INARCH_NULL_STEP_MS, and is noted in the file INARCH_NULL_LOG.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from inarch.hookspecs import hookimpl

if TYPE_CHECKING:
    from inarch.hal.backend import Backend

INARCH_API = (1, 0)
VOCABULARY = 32_000


@hookimpl
def inarch_backends() -> Sequence[Backend]:
    from null_backend import NullBackend

    step_ms = float(os.environ.get("INARCH_NULL_STEP_MS", "0"))
    log = os.environ.get("INARCH_NULL_LOG", "")
    return [NullBackend(VOCABULARY, step_s=step_ms / 1000, log=log)]
