"""Small random models of every architecture, as transformers' config keys: what all tests walk."""

from __future__ import annotations

from . import dense, hybrid, latent, moe
from .example import Example

MODELS: dict[str, Example] = {**dense.MODELS, **hybrid.MODELS, **latent.MODELS, **moe.MODELS}
