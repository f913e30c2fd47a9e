"""Prefixes handed from engine to engine: what one hardware computed, another goes on from."""

from __future__ import annotations

import json
import warnings
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from inarch.config import EngineConfig
from inarch.engine.engine import Engine
from inarch.engine.kv_bytes import Origin, Prefix, pack, unpack
from inarch.errors import InvalidRequestError, OutOfMemoryError
from inarch.hal.kv import KVHeads, KVSpec
from inarch.sampling import SamplingParams

from ..models.oracle import Saved
from .test_engine import GREEDY, Served, Start, oracle, random_prompt
from .test_longrope import model as longrope
from .test_longrope import prompt as longrope_prompt

__all__ = ["longrope"]

FAKE = Path(__file__).parents[2] / "fake_accelerator"
ONE_TOKEN = SamplingParams(temperature=0, max_tokens=1)


@pytest.fixture
def start(start: Start, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Engines of both kinds of hardware."""
    monkeypatch.syspath_prepend(FAKE)
    monkeypatch.syspath_prepend(FAKE / "installed")  # its metadata
    return start


def open_folder(folder: Path, **options: object) -> Engine:
    return Engine(
        EngineConfig(model=str(folder), backend="reference", kv_tokens=1024, **options)  # type: ignore[arg-type]
    )


@pytest.fixture(scope="module")
def prefix(served: Served) -> bytes:
    """What one engine computed of 150 tokens: 9 pages of 16."""
    with open_folder(served("llama").folder) as engine:
        engine.generate(random_prompt(150), ONE_TOKEN)
        return engine.export_prefix(random_prompt(150))


def used_pages(engine: Engine) -> int:
    return engine.stats().kv_pages_used


ROUTES = {
    "cpu-accelerator": ({"page_size": 16}, {"backend": "fake"}, 128),
    "accelerator-cpu": ({"backend": "fake"}, {"page_size": 16}, 128),
    "pages-1-16": ({"page_size": 1}, {"page_size": 16}, 144),
    "pages-48-5": ({"page_size": 48}, {"page_size": 5}, 140),  # of 144
}


@pytest.mark.parametrize(
    ("family", "route"),
    [
        *(("llama", route) for route in ROUTES),
        ("qwen2-windows", "cpu-accelerator"),
        ("youtu", "accelerator-cpu"),
    ],
)
def test_one_engine_goes_on_from_what_another_computed(
    start: Start, served: Served, family: str, route: str
) -> None:
    first, second, cached = ROUTES[route]
    prompt = random_prompt(150)
    with start(family, **first) as engine:
        (begun,) = engine.generate(prompt, ONE_TOKEN)
        data = engine.export_prefix(prompt)
    with start(family, **second) as engine:
        assert engine.import_prefix(data) == cached
        assert engine.import_prefix(data) == cached  # once more changes nothing
        (answer,) = engine.generate([*prompt, *begun.token_ids], GREEDY)
        assert used_pages(engine) == 0
    assert answer.cached_tokens == cached
    assert [*begun.token_ids, *answer.token_ids][:64] == oracle(served(family), prompt)


def test_an_answer_that_one_engine_began_another_ends(start: Start, served: Served) -> None:
    prompt = random_prompt(20)
    with start(page_size=1) as engine:
        outputs = engine.stream(prompt, GREEDY)
        tokens = [token for _ in range(40) for token in next(outputs).token_ids]
        outputs.close()
        data = engine.export_prefix(prompt + tokens)
    with start(page_size=4) as engine:
        assert engine.import_prefix(data) >= 56
        (answer,) = engine.generate(prompt + tokens, GREEDY)
    assert answer.cached_tokens >= 56
    assert (tokens + list(answer.token_ids))[:64] == oracle(served("llama"), prompt)


def test_it_is_taken_over_between_the_steps_of_streams_that_run(
    start: Start, served: Served, prefix: bytes
) -> None:
    others = [random_prompt(40, 7), [*random_prompt(150), 3, 4]]
    with start(backend="fake") as engine:
        running = engine.stream(others[0], GREEDY)
        tokens = list(next(running).token_ids)
        assert engine.import_prefix(prefix) == 128
        (answer,) = engine.generate(others[1], GREEDY)
        assert len(engine.export_prefix(others[1])) > 0
        tokens += [token for output in running for token in output.token_ids]
    assert answer.cached_tokens == 128
    assert tokens == oracle(served("llama"), others[0])
    assert list(answer.token_ids) == oracle(served("llama"), others[1])


def test_what_is_cached_already_is_kept_and_the_rest_is_added(
    start: Start, served: Served, prefix: bytes
) -> None:
    with start(page_size=16) as engine:
        engine.generate(random_prompt(150)[:70], ONE_TOKEN)  # 4 pages
        before = engine.stats().kv_pages_cached
        assert engine.import_prefix(prefix) == 144
        assert (before, engine.stats().kv_pages_cached) == (4, 9)
        (answer,) = engine.generate(random_prompt(150), GREEDY)
    assert answer.cached_tokens == 144
    assert list(answer.token_ids) == oracle(served("llama"), random_prompt(150))


def test_it_takes_no_page_from_a_running_request_and_all_room_that_there_is(
    start: Start, served: Served, prefix: bytes
) -> None:
    other = random_prompt(60, 5)
    with start(page_size=16, kv_tokens=160) as engine:
        engine.generate(random_prompt(90, 9), ONE_TOKEN)  # cache that may be given up
        running = engine.stream(other, SamplingParams(temperature=0, max_tokens=20))
        tokens = list(next(running).token_ids)
        held = used_pages(engine)
        assert engine.import_prefix(prefix) == (10 - held) * 16
        tokens += [token for output in running for token in output.token_ids]
        assert tokens == oracle(served("llama"), other)[:20]
        assert used_pages(engine) == 0
        (answer,) = engine.generate(random_prompt(150), ONE_TOKEN)
        assert answer.token_ids == tuple(oracle(served("llama"), random_prompt(150), 1))


def test_namespaces_share_nothing_whoever_computed_it(start: Start, prefix: bytes) -> None:
    with start() as engine:
        engine.import_prefix(prefix, namespace="tenant")
        with pytest.raises(InvalidRequestError, match="no page"):
            engine.export_prefix(random_prompt(150))
        assert engine.generate(random_prompt(150), ONE_TOKEN)[0].cached_tokens == 0
        assert unpacked(engine.export_prefix(random_prompt(150), "tenant")) == unpacked(prefix)


def test_a_long_sequence_is_rotated_as_one_on_both_ends(longrope: Saved) -> None:
    prompt, params = longrope_prompt(90), SamplingParams(temperature=0, max_tokens=8)
    with open_folder(longrope.folder) as engine:
        (expected,) = engine.generate(prompt, params)
        data = engine.export_prefix(prompt)
    with open_folder(longrope.folder) as engine:
        assert engine.import_prefix(data) == 80
        (short,) = engine.generate(prompt[:60], ONE_TOKEN)
        (answer,) = engine.generate(prompt, params)
    assert short.cached_tokens == 0, "keys of a long sequence are of no use to a short one"
    assert answer.cached_tokens == 80
    assert answer.token_ids == expected.token_ids


# ---- refusals ----


def refusal(engine: Engine, data: bytes) -> str:
    with pytest.raises(InvalidRequestError) as refused:
        engine.import_prefix(data)
    assert engine.stats().kv_pages_cached == engine.stats().kv_pages_used == 0
    return str(refused.value)


def saved_again(served: Served, folder: Path, *, tuned: bool, shard: str = "5GB") -> Path:
    """The model of `prefix`, in other files, and with one matrix changed a little if `tuned`."""
    model = AutoModelForCausalLM.from_pretrained(served("llama").folder)
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight += 0.01 if tuned else 0.0
    model.save_pretrained(folder, max_shard_size=shard)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((served("llama").folder / name).read_bytes())
    return folder


def test_a_model_with_other_weights_is_refused_although_its_config_is_the_same(
    served: Served, prefix: bytes, tmp_path: Path
) -> None:
    with open_folder(saved_again(served, tmp_path, tuned=True)) as engine:
        assert "by another model" in refusal(engine, prefix)


def test_the_same_model_is_known_in_another_folder_and_cut_into_other_files(
    served: Served, prefix: bytes, tmp_path: Path
) -> None:
    folder = saved_again(served, tmp_path, tuned=False, shard="20KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    with open_folder(folder) as engine:
        assert engine.import_prefix(prefix) == 144


def test_a_config_that_means_something_else_is_another_model(
    served: Served, prefix: bytes, tmp_path: Path
) -> None:
    folder = saved_again(served, tmp_path, tuned=False)
    config = json.loads((folder / "config.json").read_text())
    config["rope_parameters"] = {"rope_type": "default", "rope_theta": 77.0}
    (folder / "config.json").write_text(json.dumps(config))
    with open_folder(folder) as engine:
        assert "by another model" in refusal(engine, prefix)


def test_weights_that_were_quantized_are_another_model(start: Start, prefix: bytes) -> None:
    with start(quantization="int8") as engine:
        assert "by another model" in refusal(engine, prefix)


def test_kv_of_another_dtype_is_refused_with_the_options_that_choose_it(
    start: Start, prefix: bytes
) -> None:
    with start(kv_dtype="fp8") as engine:
        message = refusal(engine, prefix)
        assert "float32" in message
        assert "float8_e4m3fn" in message
        assert "--kv-dtype" in message
        engine.generate(random_prompt(40), ONE_TOKEN)
        own = engine.export_prefix(random_prompt(40))
    with start(kv_dtype="fp8") as engine:
        assert engine.import_prefix(own) == 32


def test_what_was_computed_in_another_dtype_is_refused_though_it_is_kept_in_the_same(
    start: Start,
) -> None:
    with start(dtype="bfloat16", kv_dtype="fp8") as engine:
        engine.generate(random_prompt(40), ONE_TOKEN)
        data = engine.export_prefix(random_prompt(40))
    with start(kv_dtype="fp8") as engine:
        message = refusal(engine, data)
        assert "computed in bfloat16, and this engine computes in float32" in message
        assert "--dtype" in message


def test_an_engine_that_has_no_memory_for_a_prefix_refuses_it_and_goes_on(
    start: Start, served: Served, prefix: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    with start(backend="fake") as engine:
        from inarch_fake.memory import Usage

        with monkeypatch.context() as full:
            full.setattr(Usage, "limit", Usage.used)
            with pytest.raises(OutOfMemoryError, match=r"cannot be taken.* --memory-share"):
                engine.import_prefix(prefix)
        stats = engine.stats()
        assert (stats.kv_pages_used, stats.kv_pages_cached) == (0, 0)
        assert engine.import_prefix(prefix) == 128
        (answer,) = engine.generate(random_prompt(150), GREEDY)
        with monkeypatch.context() as full:
            full.setattr(Usage, "limit", Usage.used)
            with pytest.raises(OutOfMemoryError, match=r"of 128 tokens cannot be read"):
                engine.export_prefix(random_prompt(150))
    assert list(answer.token_ids) == oracle(served("llama"), random_prompt(150))


def test_a_recurrent_model_is_refused_both_ways(start: Start, prefix: bytes) -> None:
    with start("qwen3-next-dense") as engine:
        engine.generate(random_prompt(150), ONE_TOKEN)
        for attempt in (
            lambda: engine.export_prefix(random_prompt(150)),
            lambda: engine.import_prefix(prefix),
        ):
            with pytest.raises(InvalidRequestError, match="recurrent state"):
                attempt()


def test_without_a_prefix_cache_there_is_nothing_to_hand_over_or_to_keep(
    start: Start, prefix: bytes
) -> None:
    with start(prefix_cache=False) as engine:
        engine.generate(random_prompt(150), ONE_TOKEN)
        with pytest.raises(InvalidRequestError, match="--no-prefix-cache"):
            engine.export_prefix(random_prompt(150))
        assert "--no-prefix-cache" in refusal(engine, prefix)


def test_a_prompt_of_which_no_page_is_full_says_so(start: Start) -> None:
    with start(page_size=16) as engine:
        engine.generate(random_prompt(15), ONE_TOKEN)
        with pytest.raises(InvalidRequestError, match=r"15 tokens no page \(of 16\)"):
            engine.export_prefix(random_prompt(15))


# ---- the bytes ----

ORIGIN = Origin(
    "a model", torch.bfloat16, KVSpec((KVHeads(2, 4, 3), KVHeads(1, 8, 0)), torch.bfloat16)
)
TOKENS = np.arange(5, dtype=np.int32)
DATA = [
    (
        torch.randn(5, h.kv_heads, h.key_dim).bfloat16(),
        torch.randn(5, h.kv_heads, h.value_dim).bfloat16(),
    )
    for h in ORIGIN.spec.layers
]
BYTES = pack(Prefix(TOKENS, DATA, is_long=True), ORIGIN)


def unpacked(data: bytes) -> dict[str, list[object]]:
    return {name: x.float().tolist() for name, x in safetensors.torch.load(data).items()}


def unpack_error(data: bytes, origin: Origin = ORIGIN) -> str:
    with pytest.raises(InvalidRequestError) as refused:
        unpack(data, origin)
    return str(refused.value)


def test_what_is_packed_comes_out_again() -> None:
    prefix = unpack(BYTES, ORIGIN)
    assert prefix.is_long
    assert prefix.tokens.tolist() == TOKENS.tolist()
    for (k, v), (own_k, own_v) in zip(prefix.data, DATA, strict=True):
        assert torch.equal(k, own_k)
        assert torch.equal(v, own_v)


def test_other_heads_or_layers_are_refused_with_both_shapes() -> None:
    fewer = replace(ORIGIN, spec=replace(ORIGIN.spec, layers=ORIGIN.spec.layers[:1]))
    message = unpack_error(BYTES, fewer)
    assert "2 layers of 1 x (8 + 0) and 2 x (4 + 3)" in message
    assert "1 layers of 2 x (4 + 3)" in message


def test_tensors_that_do_not_fit_what_the_header_says_are_refused() -> None:
    short = [(k[:4], v) for k, v in DATA]
    assert "[4, 2, 4], not" in unpack_error(pack(Prefix(TOKENS, short), ORIGIN))
    wide = [(k.float(), v) for k, v in DATA]
    assert "float32" in unpack_error(pack(Prefix(TOKENS, wide), ORIGIN))
    assert "k.1" in unpack_error(pack(Prefix(TOKENS, DATA[:1]), ORIGIN))


def with_tensor(name: str, tensor: torch.Tensor) -> bytes:
    """The packed bytes with another tensor in the place of one."""
    header = json.loads(BYTES[8 : 8 + int.from_bytes(BYTES[:8], "little")])["__metadata__"]
    return safetensors.torch.save(safetensors.torch.load(BYTES) | {name: tensor}, header)


@pytest.mark.parametrize("tokens", [torch.tensor(5), torch.zeros(5, 1)])
def test_tokens_that_are_no_row_are_refused(tokens: torch.Tensor) -> None:
    assert "not torch.int32" in unpack_error(with_tensor("tokens", tokens.int()))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn])
def test_numbers_that_would_spoil_a_page_for_whoever_has_it_next_are_refused(
    dtype: torch.dtype,
) -> None:
    origin = replace(ORIGIN, spec=replace(ORIGIN.spec, dtype=dtype))
    data = [(k.to(dtype), v.to(dtype)) for k, v in DATA]
    assert unpack(pack(Prefix(TOKENS, data), origin), origin).tokens.tolist() == TOKENS.tolist()
    spoiled = data[0][1].float()
    spoiled[3, 1, 2] = torch.nan
    data[0] = (data[0][0], spoiled.to(dtype))
    assert "not finite" in unpack_error(pack(Prefix(TOKENS, data), origin), origin)


def test_tokens_as_they_come_from_another_process_are_packed() -> None:
    read_only = np.frombuffer(TOKENS.tobytes(), dtype=np.int32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert unpack(pack(Prefix(read_only, DATA), ORIGIN), ORIGIN).tokens.tolist() == [*range(5)]


def test_a_file_of_another_kind_is_no_prefix() -> None:
    weights = safetensors.torch.save({"tokens": torch.arange(5)})
    assert "KeyError" in unpack_error(weights)
    assert "hold no prefix" in unpack_error(b"")


@settings(max_examples=300)
@given(st.data())
def test_damaged_bytes_are_refused_and_nothing_worse(data: st.DataObject) -> None:
    damaged = bytearray(BYTES[: data.draw(st.integers(0, len(BYTES)))])
    for place in (
        data.draw(st.lists(st.integers(0, len(damaged) - 1), max_size=3)) if damaged else ()
    ):
        damaged[place] = data.draw(st.integers(0, 255))
    with suppress(InvalidRequestError):
        assert unpack(bytes(damaged), ORIGIN).tokens.shape == (5,)
