"""Tells whether two engines have loaded the same model, wherever each found its files.

Hashing every weight would read a large model once more. A few elements of each tensor tell models
apart as well: training moves all of a matrix. Neither the folder nor how weights are cut into files
matters.
"""

from __future__ import annotations

import hashlib
import json

import torch
from torch import Tensor

from inarch.models.checkpoint import Checkpoint

SAMPLES = 64  # elements of each tensor
WITHOUT_MEANING = ("_name_or_path", "transformers_version")  # in a config


def fingerprint(checkpoint: Checkpoint, *, weights: bool) -> str:
    """Of the config and, unless they are dummies, of the weights as they are stored."""
    meaning = {k: v for k, v in checkpoint.config.items() if k not in WITHOUT_MEANING}
    digest = hashlib.sha256(json.dumps(meaning, sort_keys=True).encode())
    for name in sorted(checkpoint.names()) if weights else ():
        tensor = checkpoint.get(name)
        digest.update(f"{name} {list(tensor.shape)} {tensor.dtype}".encode())
        digest.update(_sample(tensor))
    checkpoint.close()
    return digest.hexdigest()[:32]


def _sample(tensor: Tensor) -> bytes:
    if not tensor.numel():
        return b""
    elements = tensor.reshape(-1).view(torch.uint8).view(tensor.numel(), -1)
    places = torch.linspace(0, len(elements) - 1, SAMPLES, dtype=torch.float64).long()
    return elements[places].numpy().tobytes()
