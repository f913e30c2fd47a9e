"""How well two texts match, as cross-encoders, embeddings and language models say it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from inarch.engine.encoding import JUDGE
from inarch.errors import InvalidRequestError

from ..models.zoo import MODELS
from ..models.zoo.encoders import CLASSIFIERS, EMBEDDERS
from .small_encoders import (
    assert_close,
    engine,
    logits,
    prompts,
    save,
    save_word_tokenizer,
)

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


@torch.inference_mode()
def test_a_reranker_is_asked_in_its_own_template_and_words(tmp_path: Path) -> None:
    """As sentence-transformers keeps Qwen3-Reranker: a role for each side, and the tokens to say."""
    model = save(MODELS["qwen3"].model(), tmp_path)
    tokenizer = save_word_tokenizer(tmp_path, "$A $B")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A", special_tokens=[])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    template = "".join(
        f"{{{{ messages | selectattr('role', 'eq', '{role}') | map(attribute='content') | first }}}} "
        for role in ("system", "query", "document")
    )
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    listed = [
        {"idx": 0, "path": "", "type": "sentence_transformers.base.modules.Transformer"},
        {"idx": 1, "path": "1_LogitScore", "type": "sentence_transformers.modules.LogitScore"},
    ]
    (tmp_path / "modules.json").write_text(json.dumps(listed))
    (tmp_path / "1_LogitScore").mkdir()
    words = {"true_token_id": 33, "false_token_id": 44}
    (tmp_path / "1_LogitScore" / "config.json").write_text(json.dumps(words))
    said = {"prompts": {"search": "w50 w51"}, "default_prompt_name": "search"}
    (tmp_path / "config_sentence_transformers.json").write_text(json.dumps(said))
    with engine(tmp_path) as served:
        found = served.score("w20", ["w30 w31"]) + served.score("w20", "w30", instruction="w60")
    asked = [[50, 51, 20, 30, 31], [60, 20, 30]]
    for ids, score in zip(asked, found, strict=True):
        right, wrong = logits(model, ids)[-1, [33, 44]]
        assert score == pytest.approx(1 / (1 + np.exp(wrong - right)), abs=1e-4)
