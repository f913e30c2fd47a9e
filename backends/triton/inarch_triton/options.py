"""What every launch tells Triton's compiler."""

from __future__ import annotations

# Multiply and add in one instruction: said here because the default differs between versions.
FUSED = {"enable_fp_fusion": True}
