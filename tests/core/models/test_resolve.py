"""MODEL is a folder, a bundled name or an id of the hub, and a message if it is none of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import filter_repo_objects

from inarch.errors import ModelError
from inarch.models.resolve import resolve_model


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test of this file reaches the network or the user's cache."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


def cache(tmp_path: Path, repository: str, revision: str = "main") -> Path:
    """What the hub's client leaves after a download."""
    root = tmp_path / "hub" / f"models--{repository.replace('/', '--')}"
    snapshot = root / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (root / "refs").mkdir()
    (root / "refs" / revision).write_text("0" * 40)
    return snapshot


def test_a_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    assert resolve_model(str(tmp_path), {}) == tmp_path


def test_a_bundled_name_is_found(tmp_path: Path) -> None:
    assert resolve_model("small", {"small": tmp_path}) == tmp_path


def test_a_model_in_the_hubs_cache_is_found_offline(tmp_path: Path) -> None:
    snapshot = cache(tmp_path, "org/name")
    assert resolve_model("org/name", {}).resolve() == snapshot.resolve()


def test_a_revision_of_the_hub_can_be_chosen(tmp_path: Path) -> None:
    snapshot = cache(tmp_path, "org/name", revision="v2")
    assert resolve_model("org/name", {}, revision="v2").resolve() == snapshot.resolve()
    with pytest.raises(ModelError, match="not in the local hub cache"):
        resolve_model("org/name", {})


HUB_FILES = {
    "config.json", "tokenizer.json", "chat_template.jinja", "additional_chat_templates/tool.jinja",
    "onnx/config.json", "training_args.bin", "consolidated.safetensors", "original/model.safetensors",
    "pytorch_model.bin.index.json", "pytorch_model-00001-of-00001.bin",
}  # fmt: skip
TAKEN_ALWAYS = {
    "config.json", "tokenizer.json", "chat_template.jinja", "additional_chat_templates/tool.jinja",
    "pytorch_model.bin.index.json",
}  # fmt: skip


@pytest.mark.parametrize(
    ("weights", "safetensors", "taken"),
    [
        (True, {"model.safetensors"}, {"model.safetensors"}),
        (True, set(), {"pytorch_model-00001-of-00001.bin"}),
        (False, set(), set()),
    ],
    ids=["safetensors", "torch", "configuration"],
)
def test_of_a_repository_only_what_is_read_is_downloaded(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    weights: bool,
    safetensors: set[str],
    taken: set[str],
) -> None:
    folder = tmp_path / "snapshot"

    def snapshot_download(model: str, **patterns: Any) -> str:
        patterns.pop("revision")
        for name in filter_repo_objects(HUB_FILES | safetensors, **patterns):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    resolve_model("org/name", {}, weights=weights)
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert found == TAKEN_ALWAYS | taken


def test_a_model_that_is_nowhere(tmp_path: Path) -> None:
    message = r"no folder org/name.*HF_HUB_OFFLINE.*hf download org/name.*Bundled models: small"
    with pytest.raises(ModelError, match=message):
        resolve_model("org/name", {"small": tmp_path})


@pytest.mark.parametrize("model", ["./nowhere", "/nowhere/at/all", "a/b/c", "~/nowhere", ""])
def test_a_path_that_does_not_exist_is_not_looked_for_on_the_hub(model: str) -> None:
    with pytest.raises(ModelError, match=r"there is no model folder .*No model is bundled"):
        resolve_model(model, {})


def test_a_name_that_the_hub_forbids(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no valid name on the hub"):
        resolve_model("org/two--dashes", {})


def test_a_file_is_not_a_model_folder(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.touch()
    with pytest.raises(ModelError, match="is a file: give the folder"):
        resolve_model(str(path), {})
