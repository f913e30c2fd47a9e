"""MODEL is a folder, a bundled name or an id of the hub, and a message if it is none of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import constants

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
