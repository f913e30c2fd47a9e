"""Finds the folder of the model that a user names: a path, a bundled model, or an id of the hub."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from inarch.errors import ModelError

CONFIGURATION = ("*.json", "*.txt", "*.jinja", "*.model")  # .model: SentencePiece vocabularies
WEIGHTS = ("*.safetensors",)
TORCH_WEIGHTS = ("pytorch_model*.bin",)  # where there are no safetensors
TEMPLATES = ("additional_chat_templates/*.jinja",)
CODE = ("*.py",)
# Copies of the same weights; but sentence-transformers has modules in folders such as 1_Pooling.
OTHER_FORMATS = ("consolidated*", "[!0-9]*/*")
HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", re.ASCII)


def resolve_model(
    model: str,
    bundled: Mapping[str, Path],
    *,
    revision: str | None = None,
    weights: bool = True,
    code: bool = False,
) -> Path:
    """The local folder of `model`, downloaded from the hub first if need be.

    A folder that exists wins over a bundled name, and both over the hub. revision: a branch, tag or
    commit on the hub. weights=False leaves the weights there, for `--load-format dummy`. code: take
    Python files too. Raises ModelError.
    """
    folder = Path(model).expanduser()
    if model and folder.is_dir():
        return folder
    if model in bundled:
        return bundled[model]
    if folder.is_file():
        raise ModelError(f"{model} is a file: give the folder that holds it and its config.json")
    names = f"Bundled models: {', '.join(bundled)}" if bundled else "No model is bundled"
    if not HUB_ID.fullmatch(model):
        raise ModelError(f"there is no model folder {model!r}. {names}")
    try:
        return _download(model, revision, weights, code)
    except (OSError, ValueError) as error:
        why = _why_not(model, error)
        raise ModelError(f"there is no folder {model}, and {why}. {names}") from error


def _download(model: str, revision: str | None, weights: bool, code: bool) -> Path:
    from huggingface_hub import snapshot_download

    def download(wanted: Sequence[str], ignored: Sequence[str] = ()) -> Path:
        found = snapshot_download(
            model, revision=revision, allow_patterns=list(wanted), ignore_patterns=list(ignored)
        )
        return Path(found)

    wanted = [*CONFIGURATION, *(WEIGHTS if weights else ()), *(CODE if code else ())]
    folder = download(wanted, OTHER_FORMATS)
    if weights and not any(folder.glob("*.safetensors")):
        download(TORCH_WEIGHTS, OTHER_FORMATS)
    download(TEMPLATES)
    return folder


def _why_not(model: str, error: Exception) -> str:
    from huggingface_hub import constants
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    if isinstance(error, GatedRepoError):
        return "the hub's model is gated: accept its terms there, then log in with `hf auth login`"
    if isinstance(error, RepositoryNotFoundError):
        return "the hub has no such model, or it is private: check the name, or `hf auth login`"
    if isinstance(error, ValueError):
        return f"it is no valid name on the hub: {error}"
    offline = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "the hub cannot be reached"
    return (
        f"it is not in the local hub cache while {offline} ({str(error).splitlines()[0]}): run "
        f"`hf download {model}` where there is a network, or give a folder"
    )
