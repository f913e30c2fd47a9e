"""Vectors, scores and classes over HTTP: OpenAI's, Cohere's, vLLM's and SGLang's words for them."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import pytest

from inarch.engine.messages import HeadInfo

from .harness import Server, eventually
from .standin import GENERATES, StandIn
from .test_metrics import scrape

EMBEDS = msgspec.structs.replace(
    GENERATES, generates=False, prompts={"query": "find: ", "document": "of: "}
)
RERANKS = msgspec.structs.replace(
    GENERATES, generates=False, outputs=1, normalized=False, labels=("fit",), scores="sigmoid"
)
CLASSIFIES = msgspec.structs.replace(
    RERANKS, outputs=3, labels=("bad", "so-so", "good"), scores="softmax"
)
EMBEDDINGS, RERANK, SCORE, CLASSIFY = "/v1/embeddings", "/v1/rerank", "/v1/score", "/v1/classify"


def serve(head: HeadInfo) -> Iterator[Server]:
    with Server(StandIn(head=head, context=32)) as server:
        yield server


@pytest.fixture
def embedder() -> Iterator[Server]:
    yield from serve(EMBEDS)


@pytest.fixture
def reranker() -> Iterator[Server]:
    yield from serve(RERANKS)


@pytest.fixture
def classifier() -> Iterator[Server]:
    yield from serve(CLASSIFIES)


def raw(server: Server, text: str) -> np.ndarray:
    return server.engine._vectors(list(text.encode()))[0]


def test_embeddings_of_many_texts_in_their_order(embedder: Server) -> None:
    answer = embedder.post(EMBEDDINGS, {"input": ["one", "three"], "model": "standin"}).json
    assert (answer["object"], answer["model"]) == ("list", "standin")
    assert answer["usage"] == {"prompt_tokens": 8, "total_tokens": 8}
    for i, (found, text) in enumerate(zip(answer["data"], ["one", "three"], strict=True)):
        assert (found["object"], found["index"]) == ("embedding", i)
        assert found["embedding"] == pytest.approx(raw(embedder, text).tolist())


@pytest.mark.parametrize("given", ["one", list(b"one"), ["one"], [list(b"one")]])
def test_texts_and_token_ids_alone_or_listed_are_the_same(embedder: Server, given: Any) -> None:
    (found,) = embedder.post(EMBEDDINGS, {"input": given}).json["data"]
    assert found["embedding"] == pytest.approx(raw(embedder, "one").tolist())


def test_base64_is_the_bytes_of_float32(embedder: Server) -> None:
    body = {"input": "one", "encoding_format": "base64", "dimensions": 3}
    (found,) = embedder.post(EMBEDDINGS, body).json["data"]
    numbers = np.frombuffer(base64.b64decode(found["embedding"]), "<f4")
    shortened = raw(embedder, "one")[:3]
    assert numbers.tolist() == pytest.approx((shortened / np.linalg.norm(shortened)).tolist())


def test_openais_client_reads_both_forms(embedder: Server) -> None:
    client = embedder.openai()
    for form in ({}, {"encoding_format": "float"}):
        found = client.embeddings.create(model="standin", input=["one"], dimensions=5, **form)
        assert len(found.data[0].embedding) == 5
        assert found.usage.prompt_tokens == 3


def test_a_prompt_of_the_models_makers_comes_before_texts_alone(embedder: Server) -> None:
    embedder.post(EMBEDDINGS, {"input": "one", "prompt_name": "query"})
    embedder.post(EMBEDDINGS, {"input": [list(b"one")], "prompt_name": "query"})
    asked = [bytes(prompt) for prompt, _ in embedder.engine.asked]
    assert asked == [b"find: one", b"one"]


@pytest.mark.parametrize(
    ("body", "param", "fragment"),
    [
        ({}, "input", "is required"),
        ({"input": []}, "input", "must not be empty"),
        ({"input": ["one", 2]}, "input[1]", "must be a text"),
        ({"input": ["one"] * 2049}, "input", "more than the 2048"),
        ({"input": [[1, 400]]}, "input[0]", "400 is outside the vocabulary"),
        ({"input": "one", "dimensions": 9}, "dimensions", "between 1 and 8"),
        ({"input": "one", "encoding_format": "hex"}, "encoding_format", "'float' or 'base64'"),
        ({"input": "one", "prompt_name": "x"}, "prompt_name", "it has 'query', 'document'"),
        ({"input": ["one", "x" * 33]}, "input[1]", "33 tokens"),
        ({"input": "x", "truncate_prompt_tokens": 0}, "truncate_prompt_tokens", "at least 1"),
        ({"input": "one", "lora_path": "a"}, "lora_path", "not supported"),
        ({"input": "one", "model": "other"}, "model", "not served here"),
    ],
)
def test_what_is_wrong_with_a_request_for_embeddings_is_said(
    embedder: Server, body: dict[str, Any], param: str, fragment: str
) -> None:
    answer = embedder.post(EMBEDDINGS, body)
    assert answer.status in (400, 404)
    assert (answer.error["param"], fragment in answer.error["message"]) == (param, True)
    assert not embedder.engine.asked


def test_a_text_may_fill_the_context_and_is_cut_if_asked(embedder: Server) -> None:
    assert embedder.post(EMBEDDINGS, {"input": "x" * 32}).status == 200
    for most, left in ((-1, 32), (7, 7)):
        embedder.post(EMBEDDINGS, {"input": "x" * 40, "truncate_prompt_tokens": most})
        assert len(embedder.engine.asked[-1][0]) == left


def test_documents_come_by_falling_score(reranker: Server) -> None:
    documents = ["a", {"text": "b"}, "c", "d"]
    answer = reranker.post(RERANK, {"query": "q", "documents": documents}).json
    scores = [one["relevance_score"] for one in answer["results"]]
    assert scores == sorted(scores, reverse=True)
    texts = {one["index"]: one["document"]["text"] for one in answer["results"]}
    assert texts == dict(enumerate("abcd"))
    assert scores[0] == pytest.approx(
        max(1 / (1 + np.exp(-float(raw(reranker, "q" + text)[0]))) for text in "abcd")
    )
    assert answer["usage"]["total_tokens"] == 8


@pytest.mark.parametrize("path", [RERANK, "/rerank", "/v2/rerank"])
def test_the_best_documents_without_their_texts(reranker: Server, path: str) -> None:
    body = {"query": "q", "documents": ["a", "b"], "top_n": 1, "return_documents": False}
    (best,) = reranker.post(path, body).json["results"]
    assert set(best) == {"index", "relevance_score"}


def test_a_search_by_embeddings_has_a_prompt_for_each_side(embedder: Server) -> None:
    embedder.post(RERANK, {"query": "a", "documents": ["a", "find: a"]})
    assert {bytes(prompt) for prompt, _ in embedder.engine.asked} == {
        b"find: a",
        b"of: a",
        b"of: find: a",
    }


def test_scores_of_pairs(reranker: Server) -> None:
    answer = reranker.post(SCORE, {"text_1": "q", "text_2": ["a", "b"]}).json
    assert [one["index"] for one in answer["data"]] == [0, 1]
    assert {one["object"] for one in answer["data"]} == {"score"}
    assert reranker.post(SCORE, {"text_1": ["q", "r"], "text_2": ["a", "b"]}).status == 200


def test_scores_of_labels_as_sglang_has_them(server: Server) -> None:
    body = {"query": "is it ", "items": ["a", "b"], "label_token_ids": [65, 66]}
    answer = server.post(SCORE, {**body, "apply_softmax": True}).json
    assert answer["object"] == "scoring"
    assert [sum(shares) for shares in answer["scores"]] == pytest.approx([1, 1])
    plain = server.post(SCORE, body).json["scores"]
    assert all(sum(shares) < 1 for shares in plain)
    server.post(SCORE, {**body, "query": [1, 2], "items": [[3], [4]], "item_first": True})
    asked = [prompt for prompt, _ in server.engine.asked]
    assert asked == [[*b"is it a"], [*b"is it b"]] * 2 + [[3, 1, 2], [4, 1, 2]]


@pytest.mark.parametrize(
    ("path", "body", "param", "fragment"),
    [
        (RERANK, {"documents": ["a"]}, "query", "is required"),
        (RERANK, {"query": "q", "documents": []}, "documents", "at least 1"),
        (RERANK, {"query": "q", "documents": ["a"], "top_n": 0}, "top_n", "greater than"),
        (RERANK, {"query": "q", "documents": [{"title": "a"}]}, "documents[0]", "valid"),
        (RERANK, {"query": "q", "documents": ["a"], "instruct": "x"}, "instruct", "no instruction"),
        (RERANK, {"query": "q", "documents": ["a" * 32]}, "documents", "33 tokens, but 32"),
        (SCORE, {"text_1": "q"}, "text_1", "either text_1 and text_2"),
        (SCORE, {"text_1": "q", "text_2": "a", "query": "q"}, "text_1", "either text_1"),
        (SCORE, {"text_1": ["q", "r"], "text_2": ["a"] * 3}, "text_1", "2 texts cannot be paired"),
        (SCORE, {"text_1": "q", "text_2": []}, "text_1", "cannot be paired with 0"),
        (SCORE, {"query": "q", "items": [[1]], "label_token_ids": [1]}, "items", "both be texts"),
        (SCORE, {"query": "q", "items": [], "label_token_ids": [1]}, "items", "takes 1 to 2048"),
        (
            SCORE,
            {"query": "q", "items": ["a"], "label_token_ids": [999]},
            "label_token_ids",
            "999 is outside",
        ),
        (CLASSIFY, {}, "input", "is required"),
        ("/classify", {}, "text", "exactly one of text and input_ids"),
        ("/encode", {"text": "a", "input_ids": [1]}, "text", "exactly one of"),
        ("/encode", {"text": "a", "image_data": "x"}, "image_data", "not supported"),
    ],
)
def test_what_is_wrong_with_other_requests_is_said(
    reranker: Server, path: str, body: dict[str, Any], param: str, fragment: str
) -> None:
    answer = reranker.post(path, body)
    assert (answer.status, answer.error["param"]) == (400, param)
    assert fragment in answer.error["message"]


def test_classes_with_probabilities(classifier: Server) -> None:
    answer = classifier.post(CLASSIFY, {"input": ["one", "two"]}).json
    for i, (found, text) in enumerate(zip(answer["data"], ["one", "two"], strict=True)):
        scores = np.exp(raw(classifier, text))
        assert found["probs"] == pytest.approx((scores / scores.sum()).tolist(), rel=1e-4)
        assert found["label"] == ("bad", "so-so", "good")[int(scores.argmax())]
        assert (found["index"], found["num_classes"]) == (i, 3)


def test_sglangs_classes_are_raw_scores(classifier: Server) -> None:
    one = classifier.post("/classify", {"text": "one", "rid": "mine"}).json
    assert one["embedding"] == pytest.approx(raw(classifier, "one").tolist())
    assert one["meta_info"]["prompt_tokens"] == 3
    assert one["meta_info"]["id"].startswith("mine")
    many = classifier.post("/classify", {"input_ids": [[1], [2, 3]]}).json
    assert [len(found["embedding"]) for found in many] == [3, 3]


def test_sglangs_vectors(embedder: Server) -> None:
    one = embedder.post("/encode", {"text": "one", "dimensions": 2}).json
    assert len(one["embedding"]) == 2
    assert len(embedder.post("/encode", {"text": ["one"]}).json) == 1
    assert embedder.get("/model_info").json["is_generation"] is False


def test_a_model_is_told_apart_by_what_it_gives(embedder: Server, classifier: Server) -> None:
    refused = embedder.post(CLASSIFY, {"input": "one"})
    assert (refused.status, "no classifier" in refused.error["message"]) == (400, True)
    refused = classifier.post(SCORE, {"text_1": "a", "text_2": "b"})
    assert (refused.status, "scores 3 labels" in refused.error["message"]) == (400, True)
    refused = classifier.post(EMBEDDINGS, {"input": "one"})
    assert refused.status == 400
    assert "no embeddings, but scores of labels, by /v1/classify" in refused.error["message"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}]}),
        ("/v1/responses", {"input": "Hi"}),
        ("/v1/decisions", {"input": "", "questions": [{"type": "predicate", "instructions": "?"}]}),
    ],
)
def test_conversations_with_an_encoder_are_refused(
    embedder: Server, path: str, body: dict[str, Any]
) -> None:
    answer = embedder.post(path, body)
    assert (answer.status, answer.error["param"]) == (400, "model")
    assert "generates no text: it gives vectors" in answer.error["message"]


def test_a_client_that_leaves_ends_all_of_its_texts(embedder: Server) -> None:
    embedder.engine.delay_s = 30
    embedder.open(EMBEDDINGS, {"input": ["one"] * 5}).close()
    eventually(lambda: embedder.engine.running == 5 or embedder.engine.aborted == 5)
    eventually(lambda: embedder.engine.aborted == 5)


def test_texts_are_counted(embedder: Server) -> None:
    embedder.post(EMBEDDINGS, {"input": ["one", "three"]})
    found = scrape(embedder)
    assert found["sglang:prompt_tokens_total"] == 8
    assert found["sglang:generation_tokens_total"] == 0
    assert found["sglang:num_requests_total"] == 2


def test_an_encoder_is_healthy_if_it_encodes(embedder: Server) -> None:
    assert embedder.get("/health_generate").status == 200
    assert [params.encode for _, params in embedder.engine.asked] == [True]
