"""The kernel table of each architecture: which kernel serves which op, and why the others do not."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
import torch

from inarch.hal.attention import AttentionSpec, attention_facts
from inarch.hal.dispatch import Choice, Dispatcher
from inarch.hal.grouped_linear import GroupedLinearSpec
from inarch.hal.kv import KVHeads, KVSpec
from inarch.hal.linear import LinearSpec
from inarch.hal.op import Kernel
from inarch.hal.ops import OPS
from inarch.hal.reference.attention import ReferenceAttention
from inarch.hal.reference.grouped_linear import ReferenceGroupedLinear
from inarch.hal.reference.kv import ReferenceKVStore
from inarch.hal.reference.linear import ReferenceLinear
from inarch_amd import aiter_kernels
from inarch_amd.architectures import ARCHITECTURES
from inarch_amd.kernels import kernels

BF16 = torch.bfloat16
NORM = {"hidden": 4096, "dtype": BF16, "weight_dtype": BF16}
ROPE = {"head_dim": 128, "rotary_dim": 128, "dtype": BF16}
FEED = {"intermediate": 14336, "dtype": BF16}
FACTS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("rms_norm", "add_rms_norm", "layer_norm", "add_layer_norm"), NORM),
    "rope": ROPE, "qk_norm_rope": ROPE | {"weight_dtype": BF16},
    **dict.fromkeys(("silu_mul", "gelu_mul", "gelu_exact_mul"), FEED),
    **dict.fromkeys(("silu", "gelu", "gelu_tanh", "relu", "relu_squared"), FEED),
    **{op: {} for op in ("greedy", "sample", "logprobs", "penalize", "count_tokens")},
    **{op: {} for op in ("add_bias", "apply_token_mask")},
}  # fmt: skip


def unloaded(arch: str) -> list[Kernel]:
    """The table without what a chosen kernel would import: Triton."""
    return [
        replace(kernel, implementation=object) if isinstance(kernel.implementation, str) else kernel
        for kernel in kernels(arch)
    ]


def table(arch: str, dtype: torch.dtype = BF16) -> dict[str, Choice]:
    """What `doctor` prints: op -> its choice, for a plain model and one of experts."""
    dispatcher = Dispatcher(unloaded(f"{arch}:sramecc+:xnack-" if "1100" not in arch else arch))
    changed = {"dtype": dtype, "weight_dtype": dtype}
    for op, facts in FACTS.items():
        dispatcher.bind(OPS[op], **{n: changed.get(n, value) for n, value in facts.items()})
    spec = AttentionSpec(32, 8, 128, 128, 0.09, dtype)
    store = ReferenceKVStore(KVSpec((KVHeads(8, 128, 128),), dtype), 64, torch.device("cpu"))
    dispatcher.select("attention", ReferenceAttention, **attention_facts(spec, store))
    dispatcher.select("linear", ReferenceLinear, **vars(LinearSpec(4096, 4096, dtype)))
    grouped = vars(GroupedLinearSpec(64, 2048, 1024, dtype))
    dispatcher.select("grouped_linear", ReferenceGroupedLinear, **grouped)
    return {choice.op: choice for choice in dispatcher.choices}


pytestmark = pytest.mark.usefixtures("no_aiter")


@pytest.fixture
def no_aiter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aiter_kernels, "version", dict)


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("dtype", [BF16, torch.float16])
def test_everything_is_served_by_a_kernel_on_every_architecture(arch, dtype):
    served = {op: choice.kernel for op, choice in table(arch, dtype).items()}
    assert set(served.values()) == {"triton"}
    assert served.keys() >= {"attention", "linear", "grouped_linear", "sample", "rope", "rms_norm"}


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_float32_products_are_torchs_by_the_library_of_the_architecture(arch):
    choices = table(arch, torch.float32)
    assert choices["linear"].kernel == ("rocblas" if arch == "gfx1100" else "hipblaslt")
    assert choices["linear"].rejected == (("triton", "torch.float32 products are left to torch"),)
    others = {op: choice.kernel for op, choice in choices.items()}
    assert others.pop("grouped_linear") == "reference"
    del others["linear"]
    assert set(others.values()) == {"triton"}


def test_what_is_passed_over_says_why():
    sample = table("gfx942")["sample"]
    assert sample.rejected == (("torch", "behind triton, cost 2"),)


# ---- AITER, by stand-ins with signatures right and wrong ----


def rms_norm(input, weight, epsilon, use_model_sensitive_rmsnorm=0):
    return input * 0 + 7


def rmsnorm2d_fwd_with_add(out, input, residual_in, residual_out, weight, epsilon, gemma=False):
    out.fill_(8)
    residual_out.copy_(input + residual_in)


def silu_and_mul(out, input):
    out.copy_(input[..., : out.shape[-1]])


@pytest.fixture
def aiter(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Install an AITER of these functions."""

    def install(**functions: Any) -> None:
        module = ModuleType("aiter")
        vars(module).update(functions)
        monkeypatch.setitem(sys.modules, "aiter", module)
        monkeypatch.setattr(aiter_kernels, "version", lambda: {"aiter": "0.1"})

    return install


def test_functions_of_the_known_signature_are_used_where_aiter_is_installed(aiter):
    aiter(
        rms_norm=rms_norm, rmsnorm2d_fwd_with_add=rmsnorm2d_fwd_with_add, silu_and_mul=silu_and_mul
    )
    dispatcher = Dispatcher(kernels("gfx942"))
    x, weight = torch.ones(2, 4, dtype=BF16), torch.ones(4, dtype=BF16)
    assert (dispatcher.bind(OPS["rms_norm"], **NORM)(x, weight, 1e-5) == 7).all()
    out, total = dispatcher.bind(OPS["add_rms_norm"], **NORM)(x, x.clone(), weight, 1e-5)
    assert (out == 8).all()
    assert (total == 2).all()
    gated = dispatcher.bind(OPS["silu_mul"], **FEED)
    assert torch.equal(gated(torch.arange(8.0).view(1, 8)), torch.arange(4.0).view(1, 4))
    assert {choice.kernel for choice in dispatcher.choices} == {"aiter"}


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (lambda input, weight, eps: None, "it takes (input, weight, eps), not (input, weight, epsilon)"),
        (lambda weight, input, epsilon: None, "it takes (weight, input, epsilon)"),
        (lambda input, weight: None, "it takes (input, weight), not"),
        (lambda input, weight, epsilon, scale: None, "it takes (input, weight, epsilon, scale)"),
        (lambda *args, **kwargs: None, "it takes (args, kwargs), not"),
        (None, "the installed AITER has no rms_norm"),
    ],
)  # fmt: skip
def test_another_signature_is_refused_with_both_and_never_called(aiter, function, why):
    aiter(**({"rms_norm": function} if function else {}))
    choice = table("gfx942")["rms_norm"]
    assert choice.kernel == "triton"
    ((name, reason),) = choice.rejected
    assert name == "aiter"
    assert why in reason


@pytest.mark.parametrize(
    ("arch", "changes", "why"),
    [
        ("gfx1100", {}, "AITER is written for gfx942 and gfx950, not for gfx1100"),
        ("gfx90a", {}, "not for gfx90a"),
        ("gfx950", {"weight_dtype": torch.float32}, "a weight of torch.float32"),
        ("gfx950", {"dtype": torch.float32, "weight_dtype": torch.float32}, "is none of"),
    ],
)
def test_aiter_is_asked_for_nothing_that_it_does_not_do(aiter, arch, changes, why):
    aiter(rms_norm=rms_norm)
    dispatcher = Dispatcher(unloaded(arch))
    dispatcher.bind(OPS["rms_norm"], **(NORM | changes))
    (choice,) = dispatcher.choices
    assert choice.kernel == "triton"
    assert why in dict(choice.rejected)["aiter"]


def test_an_aiter_that_cannot_be_imported_is_told_of(monkeypatch):
    monkeypatch.setitem(sys.modules, "aiter", None)
    monkeypatch.setattr(aiter_kernels, "version", lambda: {"aiter": "0.1"})
    reason = dict(table("gfx942")["rms_norm"].rejected)["aiter"]
    assert reason.startswith("AITER is installed, but cannot be imported: ModuleNotFoundError")
