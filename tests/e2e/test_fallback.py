"""`inarch serve` with a model that no family describes: transformers' code behind the real server."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from ..core.engine.conftest import save_tokenizer
from ..core.models.fallback.conftest import save
from ..core.models.fallback.test_running import greedy, tokens
from ..core.models.zoo.foreign import FOREIGN
from .process import ServerProcess


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def test_concurrent_requests_get_the_answers_of_transformers(tmp_path: Path) -> None:
    saved = save(FOREIGN["granite-swa"].model(), tmp_path)
    save_tokenizer(tmp_path)
    shared = tokens(40)
    prompts = [[*shared, *tokens(length, length)] for length in (1, 3, 9, 20)]
    with ServerProcess(str(tmp_path), "--backend", "reference", "--kv-tokens", "4096") as server:

        def ask(prompt: list[int]) -> list[int]:
            sampling = {"temperature": 0, "max_new_tokens": 16, "ignore_eos": True}
            body = {"input_ids": prompt, "sampling_params": sampling}
            answer = server.post("/generate", body)
            return list(answer["output_ids"])

        for _ in range(2):
            with ThreadPoolExecutor(len(prompts)) as pool:
                answers = list(pool.map(ask, prompts))
            assert answers == [greedy(saved, prompt, 16) for prompt in prompts]
        assert "GraniteSWAForCausalLM: transformers' own code runs it" in server.output


def test_a_model_that_pages_cannot_serve_ends_the_start_with_its_reason(tmp_path: Path) -> None:
    from ..core.models.zoo.example import Example

    save(Example("BloomForCausalLM", {"n_layer": 2}).model(), tmp_path)
    save_tokenizer(tmp_path)
    with (
        pytest.raises(AssertionError, match=r"BloomModel.forward takes no position_ids"),
        ServerProcess(str(tmp_path), "--backend", "reference", "--model-impl", "transformers"),
    ):
        pass
