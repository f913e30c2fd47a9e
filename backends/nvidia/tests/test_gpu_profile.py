"""The profile of a GPU, as far as it can be tried without one: reading a trace, driving the engine."""

from __future__ import annotations

import json
import time

import pytest

from inarch.engine.messages import Stats

from .scripts import script

trace, profile = script("gpu_trace"), script("gpu_profile")
Span = trace.Span


def test_only_the_devices_work_is_read_from_a_trace(tmp_path):
    events = [
        {"ph": "X", "cat": "kernel", "name": "gemm", "ts": 10.5, "dur": 2.0},
        {"ph": "X", "cat": "gpu_memcpy", "name": "Memcpy HtoD", "ts": 20, "dur": 1},
        {"ph": "X", "cat": "cuda_runtime", "name": "cudaGraphLaunch", "ts": 1, "dur": 90},
        {"ph": "X", "cat": "gpu_user_annotation", "name": "step", "ts": 1, "dur": 90},
        {"ph": "s", "cat": "kernel", "name": "flow", "ts": 1},
        {"ph": "M", "name": "process_name"},
    ]
    path = tmp_path / "trace.json"
    path.write_text(json.dumps({"traceEvents": events}))
    assert trace.read(path) == [Span("gemm", 10.5, 12.5), Span("Memcpy HtoD", 20, 21)]


@pytest.mark.parametrize(
    ("kernel", "kind"),
    [
        ("nvjet_tst_192x192_64x4_2x1_v_bz_coopB_TNN", "GEMM"),
        ("void cublasLt::splitKreduce_kernel<32, 16, int, __nv_bfloat16>", "GEMM"),
        ("void cutlass::Kernel2<cutlass_80_tensorop_s1688gemm_128x64>(Params)", "GEMM"),
        ("attention_kernel", "attention"),
        ("merge_kernel", "merge"),
        ("rms_norm_kernel", "norm"),
        ("rope_kernel", "rope"),
        ("write_kernel", "kv write"),
        ("activation_kernel", "act"),
        ("void at::native::reduce_kernel<512, 1, ReduceOp<float, ArgMaxOps<float>>>", "sampling"),
        ("void (anonymous namespace)::cunn_SoftMaxForward<8, float, float>", "sampling"),
        ("Memcpy DtoH (Device -> Pinned)", "copies"),
        ("void at::native::vectorized_gather_kernel<16, long>(char*)", "copies"),
        ("void at::native::vectorized_elementwise_kernel<4, FillFunctor<long>>", "copies"),
        ("void at::native::vectorized_elementwise_kernel<4, MulFunctor<float>>", "other"),
    ],
)
def test_a_kernel_counts_for_what_it_does(kernel, kind):
    assert trace.kind_of(kernel) == kind


def test_times_are_a_steps_and_gaps_are_idle():
    spans = [Span("gemm", 0, 1000), Span("gemm", 4000, 6000), Span("norm", 6500, 8000)]
    case = trace.summarize("two steps", reversed(spans), 2, host_ms=0.5)
    assert (case.step_ms, case.busy_ms, case.longest_gap_ms) == pytest.approx((4.0, 2.25, 3.0))
    assert case.idle == pytest.approx(1 - 2.25 / 4)
    assert case.kinds["GEMM"] == pytest.approx(1.5)
    assert [(k.name, k.calls) for k in case.kernels] == [("gemm", 1.0), ("norm", 0.5)]


def test_time_in_which_two_kernels_run_counts_once():
    """A kernel that is launched early waits beside the one before it, and that is no time of its own."""
    spans = [Span("gemm", 0, 1000), Span("norm", 900, 1100), Span("rope", 950, 1000)]
    case = trace.summarize("overlap", spans, 1, host_ms=0.0)
    assert case.busy_ms == pytest.approx(sum(case.kinds.values()))
    assert case.kinds["norm"] == pytest.approx(0.1)
    assert case.kinds["rope"] == 0
    assert case.idle == pytest.approx(0)


def test_the_table_has_a_line_for_every_case_and_stays_small():
    spans = [Span("void at::native::" + "k" * 200 + str(i), 2 * i, 2 * i + 1) for i in range(20)]
    found = [trace.summarize(load.name, spans, 1, 1.0) for load in profile.LOADS]
    lines = trace.table([*found, trace.summarize("nothing ran", [], 1, 1.0)])
    assert len(lines) < 60
    assert max(map(len, lines)) <= 160
    assert all(any(line.startswith(load.name) for line in lines[1:]) for load in profile.LOADS)


def test_the_driver_puts_into_each_step_what_the_case_says(tmp_path):
    script("dummy_model").write(
        tmp_path, num_hidden_layers=1, hidden_size=32, intermediate_size=32, head_dim=16,
        num_attention_heads=2, num_key_value_heads=1, vocab_size=300,
        bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    built = profile.start(tmp_path, "reference", 4)
    done: list[tuple[Stats, Stats]] = []

    def record(work):
        before = built.core.stats()
        work()
        done.append((before, built.core.stats()))
        return [Span("gemm", 0, 1000)]

    driver = profile.Driver(built, record)
    loads = [
        profile.Load("4", 4),
        profile.Load("2 + 64", 2, 64),
        profile.Load("64", 0, 64, steps=3),
    ]
    found = list(
        profile.cases(driver, [*loads, profile.Load("many", 10**6)], time.monotonic() + 60)
    )
    assert [case.name for case in found] == [load.name for load in loads]
    for load, case, (before, after) in zip(loads, found, done, strict=True):
        assert after.steps - before.steps == load.steps == case.steps
        produced = load.steps * (load.decodes + bool(load.prompt))
        assert after.generated_tokens - before.generated_tokens == produced
        assert after.prompt_tokens - before.prompt_tokens == load.steps * load.prompt
        assert after.cached_tokens == 0
        assert case.host_ms > 0
    assert list(profile.cases(driver, loads, deadline=0.0)) == []


def test_cases_are_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    case = trace.summarize("decode", [Span("gemm", 0, 100), Span("rope", 300, 350)], 1, 0.1)
    script("gpu_profile_plot").write_plot(tmp_path / "profile.png", "A chip", [case])
    assert (tmp_path / "profile.png").stat().st_size > 1000
