"""Weights reach the decoder once each, from any layout of files, or a message says why not."""

from __future__ import annotations

import json
import logging
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from inarch.errors import ModelError
from inarch.hal.dispatch import Dispatcher
from inarch.hal.linear import LinearSpec
from inarch.hal.op import Kernel
from inarch.hal.reference.device import ReferenceDevice
from inarch.hal.reference.kv import ReferenceKVStore
from inarch.models.checkpoint import SINGLE, Checkpoint
from inarch.models.decoder import Decoder, kv_spec
from inarch.models.families import llama
from inarch.models.loading import load_decoder

from .oracle import Saved, load, make

PROMPT = [5, 17, 42, 99, 3]


@pytest.fixture
def fresh(tmp_path: Path) -> Saved:
    """A small Llama whose files the test may change."""
    return make("llama", tmp_path)


def change(folder: Path, edit: Callable[[dict[str, Tensor]], object]) -> None:
    """Edit the tensors of a folder's only weight file."""
    tensors = load_file(folder / SINGLE)
    edit(tensors)
    save_file(tensors, folder / SINGLE)


def tie(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))


def logits(folder: Path) -> Tensor:
    return load(folder).step({0: PROMPT})[0]


def load_with(dispatcher: Dispatcher, checkpoint: Checkpoint | None) -> Decoder:
    """A Llama of the smallest config, or of a checkpoint's."""
    config = checkpoint.config if checkpoint else {"vocab_size": 50, "num_hidden_layers": 2}
    if checkpoint is None:
        config |= {"hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 96}
    description, device = llama.describe(config), ReferenceDevice()
    store = ReferenceKVStore(kv_spec(description, torch.float32), 16, device.torch_device)
    names = llama.FAMILY.names(description)
    return load_decoder(description, names, checkpoint, dispatcher, store, device, torch.float32)


def test_sharded_and_single_files_give_the_same_model(tmp_path: Path) -> None:
    single = make("qwen3", tmp_path / "single")
    sharded = make("qwen3", tmp_path / "sharded", max_shard_size="100KB")
    assert len(list(sharded.folder.glob("*.safetensors"))) > 3
    assert torch.equal(logits(single.folder), logits(sharded.folder))


def test_a_missing_tensor_is_named(fresh: Saved) -> None:
    change(fresh.folder, lambda t: t.pop("model.layers.1.mlp.up_proj.weight"))
    with pytest.raises(ModelError, match=r"lacks 1 .*: model\.layers\.1\.mlp\.up_proj\.weight\."):
        load(fresh.folder)


def test_an_untied_model_needs_its_head(fresh: Saved) -> None:
    change(fresh.folder, lambda t: t.pop("lm_head.weight"))
    with pytest.raises(ModelError, match=r"lacks 1 .*lm_head\.weight"):
        load(fresh.folder)


def test_a_wrong_shape_is_told_with_the_right_one(fresh: Saved) -> None:
    name = "model.layers.0.self_attn.k_proj.weight"
    change(fresh.folder, lambda t: t.update({name: torch.zeros(16, 64)}))
    with pytest.raises(ModelError, match=rf"{name} .* shape \[16, 64\], .* implies \[32, 64\]"):
        load(fresh.folder)


def test_quantized_tensors_are_refused(fresh: Saved) -> None:
    name = "model.norm.weight"
    change(fresh.folder, lambda t: t.update({name: t[name].to(torch.float8_e4m3fn)}))
    with pytest.raises(ModelError, match=rf"{name} .* stored as float8_e4m3fn"):
        load(fresh.folder)


def test_unused_tensors_are_counted_in_one_warning(
    fresh: Saved, caplog: pytest.LogCaptureFixture
) -> None:
    extra = {f"vision.{i}": torch.ones(1) for i in range(5)}
    table = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)}
    change(fresh.folder, lambda t: t.update(extra | table))
    load(fresh.folder)
    (record,) = caplog.records
    assert "5 tensors" in record.message
    assert "vision.0, vision.1, vision.2 and 2 more" in record.message


def test_a_complete_checkpoint_loads_without_a_word(
    fresh: Saved, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        load(fresh.folder)
    assert not caplog.records


def test_a_tied_head_may_be_stored_all_the_same(
    fresh: Saved, caplog: pytest.LogCaptureFixture
) -> None:
    change(fresh.folder, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"] + 0}))
    expected = logits(fresh.folder)
    tie(fresh.folder)
    assert torch.equal(logits(fresh.folder), expected)
    assert not caplog.records


def test_a_stored_head_that_differs_wins_over_the_configs_tie(
    fresh: Saved, caplog: pytest.LogCaptureFixture
) -> None:
    expected = logits(fresh.folder)
    tie(fresh.folder)
    assert torch.equal(logits(fresh.folder), expected)
    assert "holds a different lm_head.weight" in caplog.text


class PackingLinear:
    """Packs into a new tensor, and notes how many of the weights it was given are still alive."""

    given: list[weakref.ref[Tensor]]
    most_alive: int

    def prepack(self, spec: LinearSpec, weight: Tensor, bias: Tensor | None) -> Tensor:
        alive = sum(given() is not None for given in self.given)
        type(self).most_alive = max(self.most_alive, alive)
        self.given.append(weakref.ref(weight))
        return weight.t().contiguous()

    def apply(self, x: Tensor, packed: Tensor) -> Tensor:
        return x @ packed


def test_no_weight_outlives_its_packing(fresh: Saved) -> None:
    PackingLinear.given, PackingLinear.most_alive = [], 0
    dispatcher = Dispatcher([Kernel("linear", "packing", PackingLinear)])
    decoder = load_with(dispatcher, Checkpoint(fresh.folder))
    assert len(PackingLinear.given) == 4 * len(decoder.layers) + 1
    assert PackingLinear.most_alive == 0


def test_the_checkpoint_may_vanish_once_it_is_loaded(fresh: Saved) -> None:
    paged, expected = load(fresh.folder), fresh.logits(PROMPT)[-1]
    (fresh.folder / SINGLE).write_bytes(b"")
    torch.testing.assert_close(paged.step({0: PROMPT})[0], expected, rtol=0, atol=2e-4)


def test_random_weights_need_a_config_alone_and_are_the_same_each_time() -> None:
    first, second = load_with(Dispatcher(), None), load_with(Dispatcher(), None)
    weight = first.layers[1].mixer.qkv.packed[0]  # type: ignore[attr-defined]
    assert torch.equal(first.embedding.weight, second.embedding.weight)
    assert torch.equal(first.norm.weights[0], torch.ones(64))
    assert 0.015 < weight.std() < 0.025
    assert torch.unique(weight, dim=0).shape == weight.shape


def test_ops_are_bound_by_facts_and_layers_alike_share_them(fresh: Saved) -> None:
    dispatcher = Dispatcher()
    decoder = load_with(dispatcher, Checkpoint(fresh.folder))
    bound = sorted(choice.op for choice in dispatcher.choices)
    linears = ["linear"] * 5  # qkv, out, gate and up, down, head
    assert bound == ["add_rms_norm", "attention", *linears, "rms_norm", "rope", "silu_mul"]
    assert len(decoder.attentions) == 1
