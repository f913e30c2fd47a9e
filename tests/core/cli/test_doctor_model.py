"""`inarch doctor MODEL` says how a model would be served, without loading it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ..models.fallback.conftest import save
from ..models.zoo import MODELS
from ..models.zoo.encoders import CLASSIFIERS
from ..models.zoo.example import Example
from ..models.zoo.foreign import FOREIGN
from .conftest import Run

# Published: 8.03 billion parameters, 128 KiB of K and V a token.
LLAMA_31_8B = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "max_position_embeddings": 131072,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "rope_theta": 500000.0,
    "vocab_size": 128256,
    "dtype": "bfloat16",
    "rope_scaling": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
}

Look = Callable[..., tuple[int, list[str]]]


@pytest.fixture
def look(run: Run) -> Look:
    """Exit status and lines of `doctor` on the reference, with single spaces."""

    def look(model: Path, *options: str) -> tuple[int, list[str]]:
        ended = run("doctor", str(model), "--backend", "reference", *options)
        return ended.code, [" ".join(line.split()) for line in ended.out.splitlines()]

    return look


def written(path: Path, config: dict[str, Any]) -> Path:
    path.write_text(json.dumps(config))
    return path


def test_a_config_alone_tells_sizes_layers_and_memory(look: Look, tmp_path: Path) -> None:
    path = written(tmp_path / "llama.json", LLAMA_31_8B)
    _, lines = look(path, "--dtype", "bfloat16")
    assert "architecture LlamaForCausalLM config.json" in lines
    assert "run by our decoder, by the family llama --model-impl" in lines
    assert "weights 8.03 billion parameters in bfloat16 --dtype" in lines
    assert "stored no weights here the config alone was looked at" in lines
    assert "quantization none config.json" in lines
    layers = "layers 32 x grouped query attention, 32 heads, 8 KV heads; gated MLP layers 0-31"
    assert layers in lines
    assert "positions rotary of 128 features, theta 500000, llama3 scaling by 8" in lines
    assert "context length 131,072 tokens the model's own" in lines
    assert "KV cache 128.0 KiB a token in bfloat16 the dtype computed in" in lines
    assert "weights 14.958 parameters times the size of the dtype" in lines
    assert "one context 16.000 KV of 131,072 tokens" in lines
    assert "linear reference 5 no kernel applies" in lines


def test_weights_that_do_not_fit_are_trouble(look: Look, tmp_path: Path) -> None:
    config = LLAMA_31_8B | {"num_hidden_layers": 4000}
    code, lines = look(written(tmp_path / "config.json", config))
    assert code == 1
    assert any("trouble: weights and sampling need" in line for line in lines)
    assert any("raise --memory-share, or take a smaller model" in line for line in lines)


def test_layers_of_different_kinds_are_told_apart(look: Look, tmp_path: Path) -> None:
    MODELS["qwen3-windows"].config().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["architectures"] = ["Qwen3ForCausalLM"]
    code, lines = look(written(tmp_path / "config.json", config))
    kind = "grouped query attention, 4 heads, 2 KV heads"
    assert code == 0
    assert f"layers 2 x {kind}; gated MLP layers 0, 2" in lines
    assert f"layers 1 x {kind}, window 7; gated MLP layers 1" in lines


def test_states_take_the_place_of_the_kv_cache(look: Look, tmp_path: Path) -> None:
    save(MODELS["mamba2"].model(), tmp_path)
    code, lines = look(tmp_path)
    assert code == 0
    assert "KV cache none no layer keeps anything of each token" in lines
    assert any(line.startswith("left for states ") for line in lines)
    assert not any("left for KV" in line for line in lines)


def test_an_encoder_says_what_it_gives_and_how_it_knows_positions(
    look: Look, tmp_path: Path
) -> None:
    save(CLASSIFIERS["bert-pairs"].model(), tmp_path)
    code, lines = look(tmp_path)
    assert code == 0
    assert any(line.startswith("gives a score the architecture") for line in lines)
    assert "positions learned, 512 of them" in lines


def test_headers_of_the_weight_files_are_compared_with_the_config(
    look: Look, tmp_path: Path
) -> None:
    save(Example("LlamaForCausalLM").model(), tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    code, lines = look(tmp_path)
    assert code == 0
    assert f"stored {len(tensors)} tensors none is missing, all shapes fit" in lines
    save_file(tensors | {"extra.weight": torch.zeros(3)}, path, {"format": "pt"})
    code, lines = look(tmp_path)
    assert code == 0
    assert any(line.startswith("note 1 tensors in") for line in lines)
    assert any("extra.weight" in line for line in lines)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, path, {"format": "pt"})
    code, lines = look(tmp_path)
    assert code == 1
    assert any("lacks 1 of the tensors that config.json implies" in line for line in lines)


def test_a_model_without_a_family_is_said_to_run_by_transformers(
    look: Look, tmp_path: Path
) -> None:
    config = FOREIGN["granite-swa"].config()
    config.architectures = ["GraniteSWAForCausalLM"]
    config.save_pretrained(tmp_path)
    code, lines = look(tmp_path / "config.json")
    assert code == 0
    assert any(line.startswith("run by GraniteSWAForCausalLM of transformers 5.") for line in lines)
    assert any("no installed model family knows" in line for line in lines)
    kind = "attention, 4 heads, 2 KV heads"
    assert f"layers 2 x {kind}, window 9, sinks layers 1-2" in lines
    assert "attention reference 2 no kernel applies" in lines


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (
            {"architectures": ["BloomForCausalLM"], "model_type": "bloom"},
            "BloomModel.forward takes no position_ids",
        ),
        ({"architectures": ["Gpt9"], "model_type": "gpt9"}, "knows no model_type 'gpt9'"),
        (LLAMA_31_8B | {"quantization_config": {"quant_method": "gptq"}}, "quantized (gptq)"),
        (LLAMA_31_8B | {"hidden_size": "wide"}, "hidden_size must be a whole number"),
    ],
)
def test_what_cannot_run_is_one_line_of_trouble(
    look: Look, tmp_path: Path, config: dict[str, Any], why: str
) -> None:
    code, lines = look(written(tmp_path / "config.json", config))
    assert code == 1
    (trouble,) = [line for line in lines if line.startswith("trouble: ")]
    assert why in trouble


def test_the_chat_template_tells_what_it_knows(look: Look, model: Path) -> None:
    code, lines = look(model, "--load-format", "dummy")
    assert code == 0
    assert "tokenizer 258 tokens" in lines
    assert "chat template knows no tools" in lines
    assert any(line.startswith("calls of tools json") for line in lines)


def test_a_file_that_cannot_be_read_is_called_by_its_name(look: Look, tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    code, lines = look(path)
    assert code == 1
    assert any(line.startswith(f"trouble: {path} is not readable") for line in lines)
    path.write_text("{")
    code, lines = look(path)
    assert code == 1
    assert any(line.startswith(f"trouble: {path} is not readable as JSON") for line in lines)
