"""Vectors and scores of prompts are transformers', however prompts are batched and cut."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedModel

from inarch.config import EngineConfig
from inarch.engine.encoding import JUDGE
from inarch.engine.engine import Engine
from inarch.errors import InvalidRequestError, ModelError
from inarch.sampling import SamplingParams, encoding

from ..models.oracle import randomize
from ..models.zoo import MODELS
from ..models.zoo.encoders import CLASSIFIERS, EMBEDDERS
from .conftest import save_tokenizer

TOLERANCE = 3e-4
BACKEND = "reference"
LENGTHS = (3, 70, 1, 17, 40, 64, 5)
POOLINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "cls": lambda h: h[0],
    "lasttoken": lambda h: h[-1],
    "mean": lambda h: h.mean(0),
    "mean_sqrt_len_tokens": lambda h: h.sum(0) / np.sqrt(len(h)),
    "weightedmean": lambda h: np.average(h, axis=0, weights=np.arange(len(h)) + 1),
    "max": lambda h: h.max(0),
}


def prompts(lengths: tuple[int, ...] = LENGTHS) -> list[list[int]]:
    return [random.Random(n).choices(range(3, 101), k=n) for n in lengths]


def save(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    torch.manual_seed(7)
    randomize(model)
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return model.eval()


def engine(folder: Path, **options: object) -> Engine:
    options = {"backend": BACKEND, "kv_tokens": 2048, "max_running_requests": 8} | options
    return Engine(EngineConfig(model=str(folder), dtype="float32", **options))  # type: ignore[arg-type]


@torch.inference_mode()
def hidden(model: PreTrainedModel, ids: list[int]) -> np.ndarray:
    return model(torch.tensor([ids])).last_hidden_state[0].numpy()


@torch.inference_mode()
def logits(model: PreTrainedModel, ids: list[int]) -> np.ndarray:
    return model(torch.tensor([ids])).logits[0].numpy()


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)


def write_modules(folder: Path, mode: str, *, normalize: bool) -> None:
    kinds = ["Transformer", "Pooling", *(["Normalize"] if normalize else [])]
    listed = [
        {"idx": i, "path": f"{i}_{kind}" if i else "", "type": f"sentence_transformers.{kind}"}
        for i, kind in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(
        json.dumps({"embedding_dimension": 64, "pooling_mode": mode})
    )


@pytest.mark.parametrize("name", EMBEDDERS)
def test_embeddings_in_batches_and_chunks(name: str, tmp_path: Path) -> None:
    model = save(EMBEDDERS[name].model(), tmp_path)
    first = "bert" in name
    with engine(tmp_path, max_step_tokens=72) as served:
        for ids, found in zip(prompts(), served.encode(prompts()), strict=True):
            expected = hidden(model, ids)
            assert_close(found.vector, unit(expected[0] if first else expected[-1]))
        assert served.info.head.labels == ()


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_scores_of_labels(name: str, tmp_path: Path) -> None:
    model = save(CLASSIFIERS[name].model(), tmp_path)
    with engine(tmp_path, max_step_tokens=72) as served:
        found = served.encode(prompts())
        for ids, one in zip(prompts(), found, strict=True):
            assert_close(one.vector, logits(model, ids))
        assert len(served.info.head.labels) == model.config.num_labels


@pytest.mark.parametrize("mode", POOLINGS)
@pytest.mark.parametrize("name", ["qwen3", "bert"])
def test_every_pooling_over_several_steps(name: str, mode: str, tmp_path: Path) -> None:
    """A causal model's prompt of 70 tokens takes five steps of 16; an encoder's must not be cut."""
    model = save(EMBEDDERS[name].model(), tmp_path)
    write_modules(tmp_path, mode, normalize=False)
    with engine(tmp_path, max_step_tokens=16 if name == "qwen3" else 80) as served:
        for ids, found in zip(prompts(), served.encode(prompts()), strict=True):
            assert_close(found.vector, POOLINGS[mode](hidden(model, ids)))


def test_the_budget_of_a_step_is_an_encoders_context_at_least(tmp_path: Path) -> None:
    example = EMBEDDERS["modernbert"]
    longer = dataclasses.replace(
        example, changes={**example.changes, "max_position_embeddings": 800}
    )
    save(longer.model(), tmp_path)
    with engine(tmp_path, backend="reference") as served:
        assert served.info.max_request_tokens == 800
        assert served.encode([[3] * 800])[0].prompt_tokens == 800


def test_a_prompt_that_must_be_whole_is_refused_if_it_is_too_long(tmp_path: Path) -> None:
    save(EMBEDDERS["bert"].model(), tmp_path)
    with engine(tmp_path, max_step_tokens=16) as served:
        assert len(served.encode([[3] * 16])) == 1
        with pytest.raises(InvalidRequestError, match=r"has 17 tokens.*16.*--max-step-tokens|16"):
            served.encode([[3] * 17])


def test_prompts_that_begin_alike_share_their_beginning(tmp_path: Path) -> None:
    """The last token needs no other hidden state than its own; a mean needs them all."""
    model = save(EMBEDDERS["qwen3"].model(), tmp_path)
    instruction, texts = prompts((64,))[0], prompts((5, 9))
    with engine(tmp_path) as served:
        found = [served.encode([instruction + text])[0] for text in texts]
    assert [one.cached_tokens for one in found] == [0, 64]
    assert_close(found[1].vector, unit(hidden(model, instruction + texts[1])[-1]))
    write_modules(tmp_path, "mean", normalize=False)
    with engine(tmp_path) as served:
        found = [served.encode([instruction + text])[0] for text in texts]
    assert [one.cached_tokens for one in found] == [0, 0]
    assert_close(found[1].vector, hidden(model, instruction + texts[1]).mean(0))


@pytest.mark.parametrize("each", [False, True])
def test_a_prompt_that_was_set_back_is_pooled_anew(each: bool, tmp_path: Path) -> None:
    """Prompts of 120 tokens in chunks of 16: one mean of each, or scores of each token."""
    example = CLASSIFIERS["qwen2-tokens"] if each else EMBEDDERS["qwen3"]
    model = save(example.model(), tmp_path)
    if not each:
        write_modules(tmp_path, "mean", normalize=False)
    given = [random.Random(n).choices(range(3, 101), k=120) for n in range(5)]
    found: dict[int, np.ndarray] = {}
    with engine(tmp_path, max_step_tokens=16) as served:
        for number, output in served.stream_batch(given, [encoding()] * 5):
            found[number] = output.vectors
            served._core.scheduler.retract_all()
        assert served.stats().retractions > 0
    for number, ids in enumerate(given):
        expected = logits(model, ids) if each else hidden(model, ids).mean(0)[None]
        assert_close(found[number], expected)


def test_a_language_model_answers_and_encodes_in_one_batch(tmp_path: Path) -> None:
    model = save(MODELS["qwen3"].model(), tmp_path)
    given = prompts((40, 17, 33, 5))
    greedy = SamplingParams(max_tokens=12, temperature=0.0, ignore_eos=True)
    with engine(tmp_path, max_step_tokens=24) as served:
        alone = [one.token_ids for one in served.generate(given[::2], greedy)]
        tokens: dict[int, tuple[int, ...]] = {0: (), 2: ()}
        for number, output in served.stream_batch(given, [greedy, encoding()] * 2):
            if output.vectors is None:
                tokens[number] += output.token_ids
            else:
                expected = hidden(model.model, given[number])[-1]
                assert_close(output.vectors[0], unit(expected))
    assert list(tokens.values()) == alone


def test_leaving_while_prompts_are_encoded_leaves_nothing_behind(tmp_path: Path) -> None:
    save(EMBEDDERS["qwen3"].model(), tmp_path)
    with engine(tmp_path, max_step_tokens=16) as served:
        stream = served.stream_batch(prompts(), [encoding()] * len(LENGTHS))
        next(stream)
        stream.close()
        assert served.encode(prompts((9,)))
        stats = served.stats()
        assert (stats.running, stats.waiting, stats.kv_pages_used) == (0, 0, 0)


def test_a_model_without_an_output_head_generates_nothing(tmp_path: Path) -> None:
    save(CLASSIFIERS["llama"].model(), tmp_path)
    with (
        engine(tmp_path) as served,
        pytest.raises(InvalidRequestError, match=r"generates no text: it gives scores"),
    ):
        served.generate([[3, 4]])


def test_the_whole_prompts_of_an_encoder_fill_steps_out_of_turn(tmp_path: Path) -> None:
    """70, 64 and 40 tokens do not fit a step of 72 together; the short ones go beside them."""
    save(EMBEDDERS["bert"].model(), tmp_path)
    with engine(tmp_path, max_step_tokens=72) as served:
        served.encode(prompts())
        assert served.stats().steps == 3


@pytest.mark.parametrize(
    ("suffix", "labels", "each"), [("RewardModel", 1, False), ("ProcessRewardModel", 2, True)]
)
def test_rewards_of_qwen2(suffix: str, labels: int, each: bool, tmp_path: Path) -> None:
    """Whose classes transformers lacks: two layers behind the body, with a ReLU between them."""
    body = EMBEDDERS["qwen2"].model()
    randomize(body)
    head = torch.nn.Sequential(
        torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, labels)
    )
    tensors = {f"model.{name}": tensor for name, tensor in body.state_dict().items()}
    tensors |= {f"score.{name}": tensor for name, tensor in head.state_dict().items()}
    save_file(tensors, tmp_path / "model.safetensors")
    config = body.config.to_dict() | {"architectures": [f"Qwen2For{suffix}"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_tokenizer(tmp_path)
    with engine(tmp_path, max_step_tokens=16) as served, torch.inference_mode():
        for ids, found in zip(prompts(), served.encode(prompts()), strict=True):
            expected = head(body(torch.tensor([ids])).last_hidden_state[0]).numpy()
            assert_close(found.vector, expected if each else expected[-1])


# ---- what sentence-transformers keeps beside a model ----


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


# ---- pairs of texts ----


def save_word_tokenizer(folder: Path, pair: str) -> Tokenizer:
    """Words w3 ... w100 are tokens; `pair`: how a pair is put together."""
    vocab = {"[CLS]": 0, "[UNK]": 1, "[SEP]": 2, **{f"w{i}": i for i in range(3, 101)}}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair=pair, special_tokens=[("[CLS]", 0), ("[SEP]", 2)]
    )
    tokenizer.add_special_tokens(["[CLS]", "[SEP]"])
    tokenizer.save(str(folder / "tokenizer.json"))
    return tokenizer


PAIRS = [("w5 w6 w7", "w8 w9"), ("w5 w6 w7", "w40 w41 w42 w43 w44 w45"), ("w9", "w10")]


@pytest.mark.parametrize(
    ("name", "pair"),
    [
        ("bert-pairs", "[CLS] $A [SEP] $B:1 [SEP]:1"),
        ("xlm-roberta", "[CLS] $A [SEP] [SEP] $B [SEP]"),
        ("modernbert", "[CLS] $A [SEP] $B [SEP]"),
    ],
)
@torch.inference_mode()
def test_a_cross_encoder_reads_both_texts(name: str, pair: str, tmp_path: Path) -> None:
    model = save(CLASSIFIERS[name].model(), tmp_path)
    tokenizer = save_word_tokenizer(tmp_path, pair)
    expected = []
    for texts in PAIRS:
        read = tokenizer.encode(*texts)
        types = {"token_type_ids": torch.tensor([read.type_ids])} if name == "bert-pairs" else {}
        expected.append(model(torch.tensor([read.ids]), **types).logits[0, 0].sigmoid().item())
    first, second = zip(*PAIRS, strict=True)
    with engine(tmp_path) as served:
        assert served.score(first, second) == pytest.approx(expected, abs=1e-4)
        ranked = served.rerank(first[0], second)
        assert [one.score for one in ranked] == sorted((one.score for one in ranked), reverse=True)
        assert {one.index: one.document for one in ranked} == dict(enumerate(second))
        (best,) = served.rerank(first[0], second, top_n=1)
        assert best == ranked[0]
        with pytest.raises(InvalidRequestError, match="takes no instruction"):
            served.score("w3", "w4", instruction="Be kind")


def test_of_a_pair_that_is_too_long_the_second_text_is_cut(tmp_path: Path) -> None:
    save(CLASSIFIERS["bert-pairs"].model(), tmp_path)
    save_word_tokenizer(tmp_path, "[CLS] $A [SEP] $B:1 [SEP]:1")
    with engine(tmp_path, context_length=9) as served:
        with pytest.raises(InvalidRequestError, match="12 tokens"):
            served.score("w5 w6 w7", "w10 w11 w12 w13 w14 w15")
        cut = served.score("w5 w6 w7", "w10 w11 w12 w13 w14 w15", truncate=True)
        assert cut == served.score("w5 w6 w7", "w10 w11 w12")


def test_embeddings_are_scored_by_their_cosine(tmp_path: Path) -> None:
    save(EMBEDDERS["qwen3"].model(), tmp_path)
    with engine(tmp_path) as served:
        a, b, c = (one.vector for one in served.encode(["ab", "cde", "fg"]))
        assert served.score("ab", ["cde", "fg"]) == pytest.approx([a @ b, a @ c], abs=1e-5)
        assert served.score(["ab", "cde"], ["ab", "fg"]) == pytest.approx([1, b @ c], abs=1e-5)
        with pytest.raises(InvalidRequestError, match="2 texts cannot be paired with 3"):
            served.score(["a", "b"], ["a", "b", "c"])


@torch.inference_mode()
def test_a_language_model_is_asked_for_a_yes(tmp_path: Path) -> None:
    model = save(MODELS["qwen3"].model(), tmp_path)
    vocab = {"yes": 3, "no": 4, **{f"w{i}": i for i in range(5, 100)}, "[UNK]": 100}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    template = "{% for m in messages %}{{ m.content }} {% endfor %}w9"
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    with engine(tmp_path) as served:
        found = served.score("w20", ["w30 w31", "w40"], instruction="w50")
    for document, score in zip(["w30 w31", "w40"], found, strict=True):
        text = f"{JUDGE} <Instruct>: w50\n<Query>: w20\n<Document>: {document} w9"
        yes, no = logits(model, tokenizer.encode(text).ids)[-1, 3:5]
        assert score == pytest.approx(1 / (1 + np.exp(no - yes)), abs=1e-4)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, lambda raw: np.exp(raw) / np.exp(raw).sum()),
        ({"problem_type": "multi_label_classification"}, lambda raw: 1 / (1 + np.exp(-raw))),
        ({"problem_type": "regression"}, lambda raw: raw),
        (
            {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}},
            lambda raw: raw,
        ),
    ],
)
def test_probabilities_of_labels_are_as_the_config_says(
    change: dict[str, object], expected: Callable[[np.ndarray], np.ndarray], tmp_path: Path
) -> None:
    model = save(CLASSIFIERS["bert"].model(), tmp_path)
    place = tmp_path / "config.json"
    named = {"id2label": {"0": "bad", "1": "so-so", "2": "good"}}
    place.write_text(json.dumps(json.loads(place.read_text()) | change | named))
    (ids,) = prompts((9,))
    with engine(tmp_path) as served:
        assert_close(served.classify([ids])[0], expected(logits(model, ids)))
        assert served.info.head.labels == ("bad", "so-so", "good")
