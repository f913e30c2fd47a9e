"""Small models, and ways to run them by transformers' code over pages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from inarch.hal.dispatch import Dispatcher
from inarch.hal.reference.device import ReferenceDevice
from inarch.hal.reference.kv import ReferenceKVStore
from inarch.models.checkpoint import Checkpoint
from inarch.models.implementation import find_blueprint

from ....support.paged import Paged
from ..oracle import Saved
from ..zoo.foreign import FOREIGN


def randomised(model: PreTrainedModel, seed: int = 0) -> PreTrainedModel:
    """Weights so large that every part of the model shows in its logits."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            parameter.normal_(mean=float("norm" in key or ".ln_" in key), std=0.15)
    return model.eval()


def save(model: PreTrainedModel, folder: Path) -> Saved:
    randomised(model).save_pretrained(folder)
    return Saved(model, folder)


def load(folder: Path, page_tokens: int = 16, dummy: bool = False, **options: Any) -> Paged:
    """By transformers' code unless `model_impl` says otherwise, on the reference device."""
    device = ReferenceDevice()
    options = {"model_impl": "transformers"} | options
    blueprint = find_blueprint(Checkpoint(folder), (), dummy=dummy, **options)
    store = ReferenceKVStore(blueprint.kv_spec(torch.float32), page_tokens, device.torch_device)
    model = blueprint.load(Dispatcher(), store, device, torch.float32)
    return Paged(model, store, device)


@pytest.fixture(scope="session")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Saved]:
    """Each model of FOREIGN, made once."""
    made: dict[str, Saved] = {}

    def get(name: str) -> Saved:
        if name not in made:
            made[name] = save(FOREIGN[name].model(), tmp_path_factory.mktemp(name))
        return made[name]

    return get
