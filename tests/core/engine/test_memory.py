"""How the KV cache is sized, on a device whose memory is limited and counted: the fake accelerator."""

from __future__ import annotations

import gc
import time
from pathlib import Path

import pytest
import torch

from inarch.engine import memory
from inarch.engine.memory import measure_activations, plan_memory
from inarch.errors import OutOfMemoryError
from inarch.hal.device import Device
from inarch.hal.kv import KVLayout

FAKE = Path(__file__).parents[2] / "fake_accelerator"
MIB = 1 << 20
LAYOUT = KVLayout(page_tokens=16, page_bytes=MIB, fingerprint="test")


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    """100 MiB."""
    monkeypatch.syspath_prepend(FAKE)
    from inarch_fake.device import FakeDevice

    gc.collect()  # what other tests held is counted as long as it lives
    return FakeDevice(memory_bytes=100 * MIB)


def test_a_large_step_is_scaled_up_from_a_small_one_when_it_would_take_long(device: Device) -> None:
    """A token takes 1 KiB here, a sampled sequence 8 KiB, a long prefix 1 MiB, a step 10 ms."""
    seen = []

    def run_step(tokens: int, seqs: int, prefix: bool) -> None:
        seen.append((tokens, seqs))
        time.sleep(0.01)
        size = tokens * 1024 + seqs * 8192 + prefix * MIB
        torch.empty(size, dtype=torch.uint8, device=device.torch_device)

    patient = measure_activations(device, run_step, 512, 64)
    assert seen[-1] == (512, 64)
    assert patient == 512 * 1024 + 64 * 8192 + MIB
    tokens = int(memory.PATIENCE_S / 0.01 * memory.PROBE_TOKENS) * 2
    seen.clear()
    scaled = measure_activations(device, run_step, tokens, 64)
    assert max(seen) <= (memory.PROBE_TOKENS, memory.PROBE_SEQS)
    exact = tokens * 1024 + 64 * 8192 + MIB
    assert exact <= scaled <= 1.2 * exact


def make_plan(device: Device, **changes: object) -> memory.MemoryPlan:
    parts = {
        "share": 0.9,
        "weights": 0,
        "activations": 20 * MIB,
        "kept": 4 * MIB,
        "sampling": 10 * MIB,
        "kv_tokens": None,
        "most_tokens": 10**9,
    }
    return plan_memory(device, LAYOUT, **parts | changes)  # type: ignore[arg-type]


def test_the_cache_takes_what_the_other_parts_leave_of_the_share(device: Device) -> None:
    held = torch.empty(15 * MIB, dtype=torch.uint8, device=device.torch_device)
    plan = make_plan(device)
    assert plan.pages == (90 - 15 - 20 - 4 - 10)
    assert "0.9" in plan.limited_by
    assert held.nbytes == 15 * MIB


def test_no_more_is_taken_than_could_ever_be_used(device: Device) -> None:
    assert make_plan(device, most_tokens=160).pages == 11  # ten, and the null page
    assert make_plan(device, kv_tokens=160).limited_by == "--kv-tokens"


def test_too_little_memory_is_refused_with_the_figures(device: Device) -> None:
    with pytest.raises(OutOfMemoryError, match=r"--kv-tokens 16000 .* --memory-share"):
        make_plan(device, kv_tokens=16000)
    with pytest.raises(OutOfMemoryError, match=r"no memory is left for the KV cache"):
        make_plan(device, activations=80 * MIB)


def test_recurrent_states_take_what_runs_needs_and_a_cache_of_them_what_is_spare(
    device: Device,
) -> None:
    plan = make_plan(device, slot_bytes=MIB // 2, running=4, most_tokens=16 * 10)
    assert plan.slots == 1 + memory.USEFUL_STATES * 4
    assert plan.pages == 11, "pages that could be used are not given up for them"
    tight = make_plan(device, slot_bytes=4 * MIB, running=5)
    assert tight.slots == (90 - 34) // 2 // 4
    assert tight.pages == (90 - 34) - 4 * tight.slots
    asked = make_plan(device, slot_bytes=4 * MIB, running=5, kv_tokens=16 * 30)
    assert (asked.slots, asked.pages) == ((90 - 34 - 31) // 4, 31)


def test_too_little_memory_for_the_states_of_what_may_run_is_refused(device: Device) -> None:
    with pytest.raises(OutOfMemoryError, match=r"lower --max-running-requests to 6,"):
        make_plan(device, slot_bytes=4 * MIB, running=8)
    assert make_plan(device, slot_bytes=4 * MIB, running=8, fewer=True).slots == 7


def test_a_model_without_pages_counts_its_tokens_all_the_same(device: Device) -> None:
    layout = KVLayout(page_tokens=16, page_bytes=0, fingerprint="none")
    parts = {"share": 0.9, "weights": 0, "activations": 0, "kept": 0, "sampling": 0}
    plan = plan_memory(
        device, layout, **parts, kv_tokens=None, most_tokens=160, slot_bytes=MIB, running=4
    )
    assert (plan.pages, plan.slots) == (11, 17)
