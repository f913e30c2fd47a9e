"""From a model folder to its description, and to the names of its tensors there."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace

from inarch.models.checkpoint import Checkpoint
from inarch.models.description import Description
from inarch.models.endings import both_sides, with_head
from inarch.models.family import Family
from inarch.models.sentence_modules import dense_tensors, read_limit, read_modules
from inarch.models.sources import Names


@dataclass(frozen=True)
class Described:
    description: Description
    names: Names


def describe_folder(checkpoint: Checkpoint, family: Family) -> Described:
    """What config.json says, and the modules of sentence-transformers beside it. Raises ModelError."""
    config = {k: v for k, v in checkpoint.config.items() if k != "use_bidirectional_attention"}
    description = both_sides(checkpoint.config, family.describe(config))
    names = family.names(description)
    modules = read_modules(checkpoint.folder)
    if modules is not None and not (description.pooled and description.pooled.labels):
        description = with_head(description, modules.head)
        names = {**names, **dense_tensors(modules)}
        longest = min(description.context_length, read_limit(checkpoint.folder) or sys.maxsize)
        description = replace(description, context_length=longest)
    return Described(description, names)
