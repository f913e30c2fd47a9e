"""What cannot run over pages is refused at load, with what happened and the cure."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel
from transformers.masking_utils import (
    and_masks,
    bidirectional_mask_function,
    causal_mask_function,
    chunked_causal_mask_function,
    sliding_window_causal_mask_function,
)

from inarch.errors import ModelError
from inarch.models.checkpoint import Checkpoint
from inarch.models.fallback.interface import sight
from inarch.models.implementation import find_blueprint

from ..oracle import Saved
from ..zoo.example import SMALL, Example
from . import odd
from .conftest import load, randomised, save

Foreign = Callable[[str], Saved]


@pytest.mark.parametrize(
    ("example", "why"),
    [
        (Example("BloomForCausalLM"), "BloomModel.forward takes no position_ids"),
        (Example("BertLMHeadModel"), "goes by a mask by which tokens see later ones"),
        (Example("GPTJForCausalLM"), "its attention is not chosen by transformers' interface"),
        (Example("JambaForCausalLM"), "it has layers of the kind linear_attention"),
        (Example("Llama4ForCausalLM"), "it has layers of the kind chunked_attention"),
        (Example("XGLMForCausalLM"), "none of its 3 layers attends through"),
        (Example("DogeForCausalLM"), "goes by a mask of the model's own making"),
    ],
    ids=lambda value: getattr(value, "architecture", ""),
)
def test_architectures_that_pages_cannot_serve_say_why(
    tmp_path: Path, example: Example, why: str
) -> None:
    config = example.config()
    config.architectures = [example.architecture]
    config.save_pretrained(tmp_path)
    with pytest.raises(ModelError) as refused:
        find_blueprint(Checkpoint(tmp_path), (), model_impl="transformers", dummy=True)
    assert why in str(refused.value)
    assert "It needs a model family (see docs/models.md)" in str(refused.value)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (odd.bypass_everywhere, r"none of its 3 layers attends through .*ALL_ATTENTION_FUNCTIONS"),
        (odd.bypass_one_layer, r"only 2 of its 3 layers attend through .*ALL_ATTENTION_FUNCTIONS"),
        (odd.look_further, r"layers.0.self_attn goes by a mask of the model's own making"),
        (odd.ask_for_a_bias, r"layers.0.self_attn asks for position_bias"),
        (odd.shift_tokens, r"mixes tokens elsewhere than in its attention"),
        (odd.ignore_positions, r"mixes tokens elsewhere than in its attention"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_code_that_does_it_unseen_is_found_out(tmp_path: Path, change: Any, why: str) -> None:
    model_class = odd.registered(change.__name__, change)
    saved = save(model_class(model_class.config_class(**SMALL)), tmp_path)
    with pytest.raises(ModelError, match=why) as refused:
        load(saved.folder)
    assert model_class.__name__ in str(refused.value)


@pytest.mark.parametrize("change", [lambda model: None, odd.slide_by_mask_alone])
def test_other_code_of_a_third_party_runs(tmp_path: Path, change: Any) -> None:
    model_class = odd.registered(f"fine_{change.__name__.strip('<>')}", change)
    saved = save(model_class(model_class.config_class(**SMALL)), tmp_path)
    prompt = list(range(3, 33))
    logits = load(saved.folder).step({0: prompt})[0]
    torch.testing.assert_close(logits, saved.logits(prompt)[-1], rtol=0, atol=3e-4)


@pytest.mark.parametrize(
    ("mask", "stated", "window", "strange"),
    [
        (causal_mask_function, None, None, None),
        (sliding_window_causal_mask_function(9), 9, 9, None),
        (sliding_window_causal_mask_function(1), 1, 1, None),
        (sliding_window_causal_mask_function(4096), None, 4096, None),
        (bidirectional_mask_function, None, None, "tokens see later ones"),
        (chunked_causal_mask_function(64, torch.tensor([0])), 64, None, "in chunks of 64 tokens"),
        (chunked_causal_mask_function(64, torch.tensor([0])), None, None, "in chunks"),
        (and_masks(causal_mask_function, lambda b, h, q, kv: kv % 2 == 0), None, None, "gaps"),
        (
            and_masks(causal_mask_function, lambda b, h, q, kv: kv < 0),
            None,
            None,
            "later ones|gaps",
        ),
    ],
)
def test_a_mask_is_read_as_a_window_or_not_at_all(
    mask: Any, stated: int | None, window: int | None, strange: str | None
) -> None:
    seen = sight(mask, stated)
    assert seen.window == window
    if strange is None:
        assert seen.strange is None
    else:
        assert any(part in str(seen.strange) for part in strange.split("|"))


def with_own_code(folder: Path, model: PreTrainedModel) -> None:
    """A folder whose model is code of its own, though it says nothing but Llama."""
    randomised(model).save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "homemade",
        "architectures": ["HomemadeForCausalLM"],
        "auto_map": {
            "AutoConfig": "homemade.HomemadeConfig",
            "AutoModelForCausalLM": "homemade.HomemadeForCausalLM",
        },
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "homemade.py").write_text(
        "from transformers import LlamaConfig, LlamaForCausalLM\n\n\n"
        'class HomemadeConfig(LlamaConfig):\n    model_type = "homemade"\n\n\n'
        "class HomemadeForCausalLM(LlamaForCausalLM):\n    config_class = HomemadeConfig\n"
    )


def test_code_of_the_model_runs_only_if_it_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules = str(tmp_path / "modules")
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", modules)
    monkeypatch.syspath_prepend(modules)
    folder = tmp_path / "model"
    model = Example("LlamaForCausalLM").model()
    with_own_code(folder, model)
    for impl in ("auto", "transformers"):
        with pytest.raises(ModelError, match=r"code of its own .*\.py.*--trust-remote-code"):
            load(folder, model_impl=impl)
    assert not Path(modules).exists()
    found = load(folder, trust_code=True).step({0: [5, 6, 7]})[0]
    wanted = Saved(model, folder).logits([5, 6, 7])[-1]
    torch.testing.assert_close(found, wanted, rtol=0, atol=3e-4)


def test_an_unknown_model_type_without_code_is_refused(foreign: Foreign, tmp_path: Path) -> None:
    config = json.loads((foreign("llama").folder / "config.json").read_text())
    config |= {"model_type": "gpt9", "architectures": ["Gpt9ForCausalLM"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"Gpt9ForCausalLM.*knows no model_type 'gpt9'"):
        load(tmp_path, model_impl="auto")


def test_a_head_that_generates_no_text_is_refused(foreign: Foreign, tmp_path: Path) -> None:
    config = json.loads((foreign("persimmon").folder / "config.json").read_text())
    config["architectures"] = ["PersimmonForTokenClassification"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"names the architecture PersimmonForTokenClassification"):
        load(tmp_path)


def test_quantized_weights_are_refused(foreign: Foreign, tmp_path: Path) -> None:
    config = json.loads((foreign("persimmon").folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"quantized \(gptq\)"):
        load(tmp_path, dummy=True)


def test_a_missing_tensor_is_an_error_and_an_extra_one_a_warning(
    foreign: Foreign, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copy(foreign("stablelm").folder / "config.json", tmp_path)
    tensors = load_file(foreign("stablelm").folder / "model.safetensors")
    path, kind = tmp_path / "model.safetensors", {"format": "pt"}
    save_file(tensors | {"extra.weight": torch.zeros(3)}, path, kind)
    with caplog.at_level(logging.WARNING, "inarch.models"):
        load(tmp_path)
    assert "1 tensors in" in caplog.text
    assert "extra.weight" in caplog.text
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, path, kind)
    with pytest.raises(ModelError, match=r"lacks 1 of the tensors.*layers.1.mlp.up_proj.weight"):
        load(tmp_path)
