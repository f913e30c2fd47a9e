"""Vectors from a real server: of the bundled language model, and of an encoder that nothing else runs."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from ..core.engine.conftest import save_tokenizer
from ..core.models.oracle import randomize
from ..core.models.zoo.encoders import EMBEDDERS
from .process import ServerProcess

TEXTS = [f"The capital of country number {i} is a city" for i in range(12)]


@pytest.fixture(scope="module")
def encoder(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[ServerProcess, torch.nn.Module]]:
    folder: Path = tmp_path_factory.mktemp("encoder")
    model = EMBEDDERS["bert"].model()
    randomize(model)
    model.save_pretrained(folder)
    save_tokenizer(folder)
    options = (str(folder), "--dtype", "float32", "--api-workers", "2")
    with ServerProcess(*options) as server:
        yield server, model


def test_texts_in_one_request_and_in_many_beside_conversations(server: ServerProcess) -> None:
    client = server.openai()
    model = client.models.list().data[0].id

    def one(text: str) -> np.ndarray:
        return np.array(client.embeddings.create(model=model, input=text).data[0].embedding)

    def talk(_: int) -> str | None:
        asked = [{"role": "user", "content": "Hello"}]
        answer = client.chat.completions.create(model=model, messages=asked, temperature=0)
        return answer.choices[0].message.content

    with ThreadPoolExecutor(8) as pool:
        said, alone = pool.map(talk, range(4)), pool.map(one, TEXTS)
        together = client.embeddings.create(model=model, input=TEXTS, encoding_format="float")
        assert len(set(said)) == 1
        for found, expected in zip(together.data, alone, strict=True):
            assert np.array(found.embedding) @ expected == pytest.approx(1, abs=1e-3)


def test_a_language_model_ranks_by_what_it_would_say(server: ServerProcess) -> None:
    answer = server.post("/v1/rerank", {"query": "Hello", "documents": TEXTS[:3], "top_n": 2})
    first, second = (one["relevance_score"] for one in answer["results"])
    assert 1 >= first >= second >= 0


def test_an_encoders_vectors(encoder: tuple[ServerProcess, torch.nn.Module]) -> None:
    server, model = encoder
    ids = [[5, 6, 7], [8] * 40]
    answer = server.post("/v1/embeddings", {"input": ids})
    for prompt, found in zip(ids, answer["data"], strict=True):
        with torch.inference_mode():
            first = model(torch.tensor([prompt])).last_hidden_state[0, 0]
        expected = torch.nn.functional.normalize(first, dim=0).tolist()
        assert found["embedding"] == pytest.approx(expected, abs=3e-4)
    assert server.ask("GET", "/health_generate")[0] == 200
    assert "/v1/embeddings" in server.output


def test_an_encoder_refuses_to_generate(encoder: tuple[ServerProcess, torch.nn.Module]) -> None:
    server, _ = encoder
    for path, body in (
        ("/v1/completions", {"prompt": [5]}),
        ("/generate", {"input_ids": [5], "stream": True}),
        ("/v1/rerank", {"query": "a", "documents": ["b"], "instruct": "c"}),
    ):
        status, answer = server.ask("POST", path, body)
        assert (status, answer["error"]["type"]) == (400, "invalid_request_error")


def test_texts_survive_the_engine(encoder: tuple[ServerProcess, torch.nn.Module]) -> None:
    server, _ = encoder
    body = {"input": [[i % 90 + 3] * 30 for i in range(300)]}
    before = server.post("/v1/embeddings", body)["data"]
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(server.post, "/v1/embeddings", body)
        os.kill(server.engine, signal.SIGKILL)
        after = asked.result()["data"]
    for old, new in zip(before, after, strict=True):
        assert new["embedding"] == pytest.approx(old["embedding"], abs=1e-5)
