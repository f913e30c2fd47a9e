"""One small model: an architecture, and what its config says beyond the common small sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import transformers
from transformers import PretrainedConfig, PreTrainedModel

SMALL = {
    "vocab_size": 101,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}


@dataclass(frozen=True)
class Example:
    """architecture: the class in transformers. changes: on top of SMALL, in its config's keys.

    stored: rewrites the folder it was saved to, where the architecture is not in transformers but
    is the same as one that is.
    """

    architecture: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    stored: Callable[[Path], None] | None = None

    def config(self) -> PretrainedConfig:
        model_class = getattr(transformers, self.architecture)
        return model_class.config_class(**(SMALL | dict(self.changes)))

    def model(self) -> PreTrainedModel:
        """With transformers' own first weights."""
        return getattr(transformers, self.architecture)(self.config()).eval()
