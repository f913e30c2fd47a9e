"""docs/models.md is current, and the family that it shows serves a model."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import transformers
from safetensors.torch import load_file, save_file

from inarch.config import EngineConfig
from inarch.engine.engine import Engine
from inarch.errors import ModelError
from inarch.plugins import load_plugins
from inarch.sampling import SamplingParams

from ..conftest import Packages
from ..engine.conftest import save_tokenizer
from .oracle import Saved, make

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "models.md"
# Llama's names -> those of the page's architecture.
TENSORS = {
    "model.embed_tokens": "tokens",
    "model.norm": "norm",
    "lm_head": "output",
    "input_layernorm": "norm_1",
    "post_attention_layernorm": "norm_2",
    "self_attn.q_proj": "attention.query",
    "self_attn.k_proj": "attention.key",
    "self_attn.v_proj": "attention.value",
    "self_attn.o_proj": "attention.out",
    "mlp.gate_proj": "mlp.gate",
    "mlp.up_proj": "mlp.up",
    "mlp.down_proj": "mlp.down",
    "model.layers": "blocks",
}
CONFIG = {
    "architectures": ["AcmeForCausalLM"],
    "n_heads": 4,
    "n_kv_heads": 2,
    "width": 64,
    "mlp_width": 96,
    "n_layers": 3,
    "n_tokens": 101,
    "context": 512,
}


def example() -> str:
    """The page's plugin, as it stands there."""
    found = re.search(r"```python\n# inarch_acme/plugin.py\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found
    return found[1]


def renamed(name: str) -> str:
    for llama, acme in TENSORS.items():
        name = name.replace(llama, acme)
    return name


@pytest.fixture
def acme(tmp_path: Path) -> Saved:
    """A checkpoint of the page's architecture, and the Llama that it is underneath."""
    saved = make("llama", tmp_path / "llama")
    folder = tmp_path / "acme"
    folder.mkdir()
    tensors = load_file(saved.folder / "model.safetensors")
    renamed_tensors = {renamed(name): tensor for name, tensor in tensors.items()}
    save_file(renamed_tensors, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(CONFIG))
    save_tokenizer(folder)
    return Saved(saved.model, folder)


def test_a_family_fits_in_forty_lines() -> None:
    code = [line for line in example().splitlines() if line.strip()]
    assert len(code) <= 40


def test_the_family_on_the_page_serves_its_model(packages: Packages, acme: Saved) -> None:
    options = {"model": str(acme.folder), "backend": "reference", "kv_tokens": 1024}
    with pytest.raises(ModelError, match=r"no installed model family knows .*AcmeForCausalLM"):
        Engine(EngineConfig(**options))
    packages.add("acme", example(), plain=True)
    prompt = list(range(40, 70))
    sampling = SamplingParams(temperature=0, max_tokens=32, ignore_eos=True)
    with Engine(EngineConfig(**options)) as engine:
        answer = engine.generate(prompt, sampling)[0]
    assert [r.state.value for r in load_plugins().records if r.name == "acme"] == ["ready"]
    assert list(answer.token_ids) == acme.greedy(prompt, 32)


@pytest.fixture
def maker(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The script that writes the page."""
    spec = importlib.util.spec_from_file_location("maker", ROOT / "ci" / "make_models_doc.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "maker", module)
    monkeypatch.setattr("sys.path", list(sys.path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    verbosity = transformers.logging.get_verbosity()
    spec.loader.exec_module(module)
    yield module
    transformers.logging.set_verbosity(verbosity)


def test_the_tables_name_the_families_and_models_that_there_are(maker: ModuleType) -> None:
    """Errors are measured by `python ci/make_models_doc.py`, which takes longer."""
    made = maker.page(measured=False)
    assert maker.static_part(PAGE.read_text()) == maker.static_part(made)
