"""Keeps Python's cycle collector from stopping a process that serves.

Torch and the model libraries are a million objects that live as long as the process. A full
collection looks at every one of them, for a tenth of a second or more, and a server makes enough
objects to have one every few seconds.
"""

from __future__ import annotations

import gc

# Containers made, less those freed, from which the youngest are looked at; Python's own is 700.
# 600 streams hold more than that between two tokens, and none of it is garbage.
YOUNGEST = 20_000


def settle() -> None:
    """Call once, when all that stays is there: later collections look at what came after it."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNGEST, *gc.get_threshold()[1:])
