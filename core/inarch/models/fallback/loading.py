"""Load the weights of a model of transformers by its own loader, or make random ones."""

from __future__ import annotations

import contextlib
import copy
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from inarch.errors import ModelError
from inarch.models.checkpoint import listed
from inarch.models.fallback.interface import RUNNING
from inarch.models.fallback.refusing import described

log = logging.getLogger(__name__)


def load_module(
    folder: Path,
    config: Any,
    dtype: torch.dtype,
    device: torch.device,
    *,
    dummy: bool,
    trust_code: bool,
) -> Any:
    """The model in `dtype` on the device, attending under the name RUNNING.

    It is read into the host's memory and then moved, tensor by tensor. Raises ModelError for weights
    that are missing or do not fit.
    """
    from transformers import AutoModelForCausalLM

    options = {"attn_implementation": RUNNING, "dtype": dtype, "trust_remote_code": trust_code}
    config = copy.deepcopy(config)  # transformers writes the choices above into it
    if dummy:
        with torch.random.fork_rng(devices=[]), torch.device(device):
            torch.manual_seed(0)
            return AutoModelForCausalLM.from_config(config, **options).eval()
    try:
        with _bar_on_terminals():
            module, found = AutoModelForCausalLM.from_pretrained(
                folder, config=config, output_loading_info=True, **options
            )
    except Exception as error:
        raise ModelError(f"transformers cannot load {folder}: {described(error)}") from error
    _check(folder, found)
    return module.eval().to(device)


@contextlib.contextmanager
def _bar_on_terminals() -> Iterator[None]:
    """transformers draws its progress wherever stderr goes: in a log it is noise."""
    from transformers.utils import logging as theirs

    if sys.stderr.isatty() or not theirs.is_progress_bar_enabled():
        yield
        return
    theirs.disable_progress_bar()
    try:
        yield
    finally:
        theirs.enable_progress_bar()


def _check(folder: Path, found: Any) -> None:
    missing = sorted(found["missing_keys"])
    if missing:
        raise ModelError(
            f"{folder} lacks {len(missing)} of the tensors that config.json implies: "
            f"{listed(missing)}. The download is incomplete, or the config is of another model"
        )
    misshapen = sorted(str(key[0]) for key in found["mismatched_keys"])
    if misshapen:
        raise ModelError(
            f"{len(misshapen)} tensors in {folder} have other shapes than config.json implies: "
            f"{listed(misshapen)}. Config and weights do not belong together"
        )
    unused = sorted(found["unexpected_keys"])
    if unused:
        log.warning("%d tensors in %s are not used: %s", len(unused), folder, listed(unused))
