"""torch's operations as functions on JAX arrays: those that models, and the references of ops, use.

The table goes by torch's names, whatever the overload. What is not in it is first taken apart by torch
itself (see tensor.py); what cannot be is refused by name.
"""

from __future__ import annotations

from inarch_tpu import arithmetic, indexing, shaping
from inarch_tpu.table import TABLE

__all__ = ["TABLE", "arithmetic", "indexing", "shaping"]
