"""The simulation itself: what a real NPU, or torch-npu before it, would refuse is refused.

Without these, a test of the backend that passes on the simulated NPU would say little.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from inarch.hal.device import Device

BLOCKS, HEADS, KV_HEADS, DIM = 6, 4, 2, 128


def attention(**changes: Any) -> tuple[Tensor, Tensor]:
    """A correct call of two decodes and a prompt, with changes. None leaves an argument away."""
    pages = torch.zeros(BLOCKS, 128, KV_HEADS * DIM, dtype=torch.bfloat16)
    given = {
        "query": torch.zeros(5, HEADS, DIM, dtype=torch.bfloat16),
        "key": pages,
        "value": pages.clone(),
        "atten_mask": torch.ones(2048, 2048, dtype=torch.int8).triu(1),
        "actual_seq_qlen": [1, 2, 5],
        "actual_seq_kvlen": [130, 7, 3],
        "block_table": torch.tensor([[1, 2], [3, 0], [4, 0]], dtype=torch.int32),
        "num_query_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "softmax_scale": 0.1,
        "input_layout": "TND",
        "sparse_mode": 3,
        "block_size": 128,
    } | changes
    there = {
        name: value.to("npu") if isinstance(value, Tensor) else value
        for name, value in given.items()
        if value is not None
    }
    found: tuple[Tensor, Tensor] = torch.ops.npu.npu_fused_infer_attention_score_v2(
        there.pop("query"), there.pop("key"), there.pop("value"), **there
    )
    return found


def test_a_correct_call_is_taken(npu: Device) -> None:
    out, _ = attention()
    assert out.shape == (5, HEADS, DIM)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"actual_seq_lengths": [1, 2, 5]}, "Unknown keyword argument 'actual_seq_lengths'"),
        ({"num_query_heads": 4.0}, "num_query_heads"),
        ({"query": torch.zeros(5, HEADS, DIM)}, "torch.float32"),
        ({"key": torch.zeros(BLOCKS, 128, KV_HEADS * DIM, dtype=torch.float16)}, "torch.float16"),
        ({"block_size": 64}, "blocks of 64"),
        ({"atten_mask": None}, "sparse_mode 3 without a mask"),
        ({"atten_mask": torch.ones(2048, 2048, dtype=torch.int8).tril()}, "hide what comes later"),
        ({"atten_mask": torch.ones(64, 64, dtype=torch.int8).triu(1)}, "mask torch.Size"),
        ({"sparse_mode": 2}, "sparse_mode 2 in the layout TND"),
        ({"sparse_mode": 0}, "a mask without a sparse mode"),
        ({"actual_seq_qlen": [1, 1, 3]}, "3 of 5 tokens"),
        ({"actual_seq_kvlen": [130, 7]}, "3 and 2 lengths"),
        ({"actual_seq_kvlen": [130, 7, 2]}, "more queries"),
        ({"actual_seq_kvlen": [130, 7, 300]}, "too few blocks"),
        ({"block_table": torch.zeros(3, 2, dtype=torch.int64)}, "block table"),
        ({"input_layout": "BSND"}, "layout BSND"),
        ({"learnable_sink": torch.zeros(HEADS)}, "sinks torch.float32"),
        ({"key_quant_mode": 1}, "quantized"),
        ({"query": torch.zeros(5, HEADS, 64, dtype=torch.bfloat16)}, "heads (64"),
    ],
)
def test_a_wrong_call_is_refused(npu: Device, change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(Exception, match=re.escape(complaint)):
        attention(**change)


def test_lengths_must_not_come_from_the_device(npu: Device) -> None:
    lengths = npu.upload(np.array([130, 7, 3]))
    with pytest.raises(Exception, match="looked at a value"):
        attention(actual_seq_kvlen=lengths)


def test_the_host_cannot_touch_what_is_on_the_npu(npu: Device) -> None:
    from inarch_ascend.simulation.memory import NPUError

    x = npu.upload(np.ones(3, np.float32))
    with pytest.raises(NPUError, match="looked at a value"):
        float(x.sum())
    with pytest.raises(NPUError, match="given memory of the host"):
        x + torch.ones(3)


def test_a_download_is_not_there_before_it_was_waited_for(npu: Device) -> None:
    transfer = npu.download(npu.upload(np.ones(3, np.float32)))
    assert transfer._pinned.isnan().all(), "still under way"  # type: ignore[attr-defined]
    assert not transfer.ready()
    assert transfer.wait().tolist() == [1, 1, 1]
    assert transfer.ready()


def test_the_wheel_s_own_functions_say_what_comes_out(npu: Device) -> None:
    """Our arithmetic of an operator cannot drift from the wheel: shape and dtype are compared."""
    from inarch_ascend.simulation import memory

    x = npu.upload(np.ones((2, 4), np.float32))
    compute = memory.machine.compute
    good = compute["npu_swiglu"]
    compute["npu_swiglu"] = lambda input, dim=-1: input
    try:
        with pytest.raises(memory.NPUError, match="the wheel promises"):
            torch.ops.npu.npu_swiglu(x)
    finally:
        compute["npu_swiglu"] = good


def test_operators_without_a_rule_cannot_be_called(npu: Device) -> None:
    from inarch_ascend.simulation.memory import NPUError

    with pytest.raises(NPUError, match="no rule says what it takes"):
        torch.ops.npu.npu_fast_gelu(npu.upload(np.ones((2, 4), np.float32)))


def test_a_slot_may_be_written_once_but_in_the_null_page(npu: Device) -> None:
    from inarch_ascend.simulation.memory import NPUError

    pages = [torch.zeros(3, 128, 2, 128, device="npu") for _ in range(2)]
    new = [torch.zeros(2, 2, 128, device="npu") for _ in range(2)]

    def write(*slots: int, **options: Any) -> None:
        where = npu.upload(np.array(slots, np.int32))
        torch.ops.npu.npu_scatter_pa_kv_cache(*new, *pages, where, **options)

    write(5, 5, cache_mode="Norm")
    for slots in ((128, 128), (128, 384), (-1, 128)):
        with pytest.raises(NPUError, match="slot"):
            write(*slots, cache_mode="Norm")
    with pytest.raises(NPUError, match="plain order, not PA_NZ"):
        write(128, 129)
