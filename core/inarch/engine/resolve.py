"""Settle, before an engine starts, what the user left open: which backend, which model folder."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from inarch.config import EngineConfig
from inarch.engine.opening import environment_of
from inarch.errors import ModelError
from inarch.hal.backend import Backend
from inarch.models.resolve import resolve_model
from inarch.plugins import Plugins
from inarch.selection import choose_backend


def resolve(config: EngineConfig, plugins: Plugins) -> tuple[EngineConfig, Backend]:
    """A configuration that names a folder and a backend that are there, and that backend."""
    backend = choose_backend(plugins, config.backend)
    bundled = {model.name: model.path for model in plugins.bundled_models()}
    model = config.model or next(iter(bundled), None)
    if model is None:
        raise ModelError(
            "no MODEL was given and no plugin brings one: inarch serve FOLDER_OR_HUB_ID"
        )
    folder = resolve_model(
        model,
        bundled,
        revision=config.revision,
        weights=config.load_format != "dummy",
        code=config.trust_remote_code,
    )
    name = config.served_model_name or (Path(model).name if Path(model).is_dir() else model)
    resolved = dataclasses.replace(
        config, model=str(folder), served_model_name=name, backend=backend.name
    )
    return resolved, backend


def set_environment(backend: Backend) -> None:
    """Variables that must stand before torch is imported; what the user set stays.

    An installed torch extension without its driver would otherwise break `import torch`.
    """
    os.environ.setdefault("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")
    for name, value in environment_of(backend).items():
        os.environ.setdefault(name, value)
