"""What sentence-transformers keeps beside a model makes its vectors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import processors

from inarch.errors import InvalidRequestError, ModelError

from ..models.zoo.encoders import EMBEDDERS
from .small_encoders import (
    assert_close,
    engine,
    hidden,
    prompts,
    save,
    save_word_tokenizer,
    unit,
    write_modules,
)


def test_dense_modules_follow_the_pooling_and_dimensions_are_cut(tmp_path: Path) -> None:
    model = save(EMBEDDERS["bert"].model(), tmp_path)
    write_modules(tmp_path, "mean", normalize=True)
    listed = json.loads((tmp_path / "modules.json").read_text())
    listed[2]["idx"] = 4
    expected = lambda h: torch.from_numpy(h.mean(0))  # noqa: E731
    layers = [(64, 48, True, torch.nn.Tanh()), (48, 24, False, torch.nn.Identity())]
    modules = []
    for index, (inputs, outputs, bias, act) in enumerate(layers, start=2):
        folder = tmp_path / f"{index}_Dense"
        folder.mkdir()
        kind = type(act)
        said = {
            "in_features": inputs,
            "out_features": outputs,
            "bias": bias,
            "activation_function": f"{kind.__module__}.{kind.__name__}",
        }
        (folder / "config.json").write_text(json.dumps(said))
        linear = torch.nn.Linear(inputs, outputs, bias=bias)
        tensors = {f"linear.{name}": tensor for name, tensor in linear.state_dict().items()}
        save_file(tensors, folder / "model.safetensors")
        listed.append({"idx": index, "path": folder.name, "type": "sentence_transformers.Dense"})
        modules.append(torch.nn.Sequential(linear, act))
    (tmp_path / "modules.json").write_text(json.dumps(listed))
    (ids,) = prompts((17,))
    with torch.inference_mode():
        dense = torch.nn.Sequential(*modules)(expected(hidden(model, ids))).numpy()
    with engine(tmp_path) as served:
        assert_close(served.encode([ids])[0].vector, unit(dense))
        assert_close(served.encode([ids], dimensions=7)[0].vector, unit(dense[:7]))
        for dimensions in (0, 25):
            with pytest.raises(InvalidRequestError, match="between 1 and 24"):
                served.encode([ids], dimensions=dimensions)


def test_prompts_by_name_and_the_default_one(tmp_path: Path) -> None:
    save(EMBEDDERS["qwen3"].model(), tmp_path)
    said = {"prompts": {"query": "ask: ", "document": ""}, "default_prompt_name": "query"}
    (tmp_path / "config_sentence_transformers.json").write_text(json.dumps(said))
    with engine(tmp_path) as served:
        plain, asked = served.encode(["ab", "ask: ab"], prompt_name="document")
        assert_close(served.encode("ab")[0].vector, asked.vector)
        assert_close(served.encode("ab", prompt_name="query")[0].vector, asked.vector)
        assert abs(plain.vector - asked.vector).max() > 0.01
        with pytest.raises(InvalidRequestError, match="no prompt 'other'; it has 'query', 'docu"):
            served.encode("ab", prompt_name="other")
        # A search is the one use of both prompts.
        assert served.rerank("ab", ["ask: ab", "x"])[0].score == pytest.approx(1.0, abs=1e-5)


def test_texts_are_as_long_as_the_makers_say_and_cut_if_asked(tmp_path: Path) -> None:
    model = save(EMBEDDERS["bert"].model(), tmp_path)
    write_modules(tmp_path, "mean", normalize=False)
    (tmp_path / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 20}))
    (ids,) = prompts((21,))
    with engine(tmp_path) as served:
        with pytest.raises(InvalidRequestError, match="21 tokens, but the context length is 20"):
            served.encode([ids])
        (found,) = served.encode([ids], truncate=True)
        assert_close(found.vector, hidden(model, ids[:20]).mean(0))


def test_a_text_ends_with_the_token_that_its_makers_add(tmp_path: Path) -> None:
    """The tokenizer's own file does not say so in older folders."""
    model = save(EMBEDDERS["mistral"].model(), tmp_path)
    tokenizer = save_word_tokenizer(tmp_path, "[CLS] $A $B")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A", special_tokens=[("[CLS]", 0)]
    )
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    said = {"add_eos_token": True, "eos_token": "[SEP]"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(said))
    write_modules(tmp_path, "lasttoken", normalize=True)
    with engine(tmp_path) as served:
        (found,) = served.encode("w5 w6")
    assert found.prompt_tokens == 4
    assert_close(found.vector, unit(hidden(model, [0, 5, 6, 2])[-1]))


def test_the_body_of_a_language_model_may_be_called_the_whole(tmp_path: Path) -> None:
    """As Qwen3-Embedding: its config names a language model, its weights have no head."""
    model = save(EMBEDDERS["qwen3"].model(), tmp_path)
    write_modules(tmp_path, "lasttoken", normalize=True)
    place = tmp_path / "config.json"
    named = {"architectures": ["Qwen3ForCausalLM"]}
    place.write_text(json.dumps(json.loads(place.read_text()) | named))
    (ids,) = prompts((17,))
    with engine(tmp_path) as served:
        assert not served.info.head.generates
        assert_close(served.encode([ids])[0].vector, unit(hidden(model, ids)[-1]))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"pooling_mode": ["mean", "max"]}, "pools by mean, max"),
        ({"pooling_mode": "median"}, "pools by median"),
        ({"include_prompt": False}, "include_prompt is false"),
    ],
)
def test_pooling_that_is_not_served_is_refused(
    change: dict[str, object], said: str, tmp_path: Path
) -> None:
    save(EMBEDDERS["bert"].model(), tmp_path)
    write_modules(tmp_path, "mean", normalize=False)
    place = tmp_path / "1_Pooling" / "config.json"
    place.write_text(json.dumps(json.loads(place.read_text()) | change))
    with pytest.raises(ModelError, match=said):
        engine(tmp_path)


def test_old_spellings_of_a_checkpoint_are_read(tmp_path: Path) -> None:
    """Flags in place of pooling_mode, gamma and beta in place of weight and bias."""
    model = save(EMBEDDERS["bert"].model(), tmp_path)
    write_modules(tmp_path, "mean", normalize=False)
    flags = {"pooling_mode_cls_token": False, "pooling_mode_max_tokens": True}
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(flags))
    renamed = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): tensor
        for name, tensor in load_file(tmp_path / "model.safetensors").items()
    }
    save_file(renamed, tmp_path / "model.safetensors")
    (ids,) = prompts((12,))
    with engine(tmp_path) as served:
        assert_close(served.encode([ids])[0].vector, hidden(model, ids).max(0))


def test_modules_that_are_not_served_are_refused(tmp_path: Path) -> None:
    save(EMBEDDERS["bert"].model(), tmp_path)
    listed = [{"idx": 0, "path": "", "type": "sentence_transformers.models.Router"}]
    (tmp_path / "modules.json").write_text(json.dumps(listed))
    with pytest.raises(ModelError, match="module Router, which is not supported"):
        engine(tmp_path)
