"""Experts and routers of this backend against the reference, experts in float64."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from inarch.hal.experts import ExpertsSpec, ExpertWeights
from inarch.hal.grouped_linear import GroupedLinearSpec, RowGroups
from inarch.hal.ops.activation import clamped_swiglu, gelu_mul, silu_mul
from inarch.hal.ops.routing import route, sparse_mixer
from inarch.hal.quantized_experts import QuantizedExpertsSpec, QuantizedExpertWeights
from inarch.hal.quantized_linear import QuantizationScheme, QuantizedLinearSpec, QuantizedWeight
from inarch.hal.reference.experts import ComposedExperts
from inarch.hal.reference.grouped_linear import ReferenceGroupedLinear
from inarch.hal.reference.quantized_linear import dequantize
from inarch_intel_cpu.experts import MOST_ROWS, NativeExperts, NativeGroupedLinear
from inarch_intel_cpu.routing import Routing

BASE = ExpertsSpec(6, 2, 65, 48, torch.float32)
KINDS = {
    "silu": BASE,
    "gelu": replace(BASE, activation="gelu_tanh", top_k=3, bias=True),
    "clamped": replace(BASE, activation="clamped_swiglu", alpha=1.7, limit=0.5, bias=True),
    "scaled-input": replace(BASE, scale_input=True, top_k=1),
}
UNIT = {torch.float32: 2e-6, torch.bfloat16: 8e-3, torch.float16: 1e-3}
SCHEMES = [QuantizationScheme(8, 32), QuantizationScheme(4, 32), QuantizationScheme(4, 64, True)]


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def weights_of(spec):
    shapes = [(spec.experts, 2 * spec.intermediate, spec.hidden)]
    shapes.append((spec.experts, spec.hidden, spec.intermediate))
    tensors = [normal(*shape, seed=n) * shape[-1] ** -0.5 for n, shape in enumerate(shapes)]
    if spec.bias:
        tensors += [normal(*shape[:2], seed=n) for n, shape in enumerate(shapes, 2)]
    return ExpertWeights(*(tensor.to(spec.dtype) for tensor in tensors))


def tokens_of(spec, count):
    x = normal(count, spec.hidden, seed=7).to(spec.dtype)
    scores = torch.rand(count, spec.experts, generator=torch.Generator().manual_seed(8))
    shares, experts = scores.topk(spec.top_k)
    return x, experts, shares


def expected(spec, weights, x, experts, shares):
    """The reference in float64."""
    wide = replace(spec, dtype=torch.float64)
    weights = ExpertWeights(*(None if w is None else w.double() for w in vars(weights).values()))
    limits = {"alpha": spec.alpha, "limit": spec.limit}
    activate = {"silu": silu_mul, "gelu_tanh": gelu_mul}.get(
        spec.activation, lambda y: clamped_swiglu(y, **limits)
    )
    part = ReferenceGroupedLinear()
    layer = ComposedExperts(part, part, activate)
    return layer.apply(x.double(), experts, shares.double(), layer.prepack(wide, weights))


@pytest.mark.parametrize("dtype", list(UNIT), ids=str)
@pytest.mark.parametrize("kind", list(KINDS))
def test_every_token_is_the_weighted_sum_of_its_experts(native, kind, dtype):
    spec = replace(KINDS[kind], dtype=dtype)
    weights, layer = weights_of(spec), NativeExperts(native)
    packed = layer.prepack(spec, weights)
    for count in (0, 1, 2, 5, 40):
        given = tokens_of(spec, count)
        out = layer.apply(*given, packed)
        assert out.dtype == dtype
        wanted = expected(spec, weights, *given)
        torch.testing.assert_close(out.double(), wanted, rtol=UNIT[dtype], atol=4 * UNIT[dtype])


def test_more_rows_than_are_worked_on_at_a_time(native):
    spec = replace(BASE, hidden=8, intermediate=4)
    weights, layer = weights_of(spec), NativeExperts(native)
    given = tokens_of(spec, MOST_ROWS // spec.top_k + 5)
    out = layer.apply(*given, layer.prepack(spec, weights))
    torch.testing.assert_close(out.double(), expected(spec, weights, *given), rtol=1e-5, atol=1e-5)


def test_experts_that_nobody_chose_are_not_read(native):
    weights, layer = weights_of(BASE), NativeExperts(native)
    x, experts, shares = tokens_of(BASE, 3)
    experts[:] = torch.tensor([1, 4])
    wanted = expected(BASE, weights, x, experts, shares)
    for part in (weights.gate_up, weights.down):
        part[[0, 2, 3, 5]] = torch.nan
    out = layer.apply(x, experts, shares, layer.prepack(BASE, weights))
    torch.testing.assert_close(out.double(), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_token_does_not_feel_its_neighbours(native, threads):
    native.set_threads(threads)
    layer, given = NativeExperts(native), tokens_of(BASE, 30)
    packed = layer.prepack(BASE, weights_of(BASE))
    together = layer.apply(*given, packed)
    for one in range(0, 30, 7):
        alone = layer.apply(*(part[one : one + 1] for part in given), packed)
        torch.testing.assert_close(together[one : one + 1], alone, rtol=1e-5, atol=1e-6)


def quantized(spec, scheme):
    """Random weights of few bits, and what they are in floating point."""
    top, generator = (1 << scheme.bits) - 1, torch.Generator().manual_seed(3)

    def draw(outputs, inputs):
        shape = (spec.experts, outputs, inputs)
        values = torch.randint(0, top + 1, shape, generator=generator, dtype=torch.uint8)
        groups = (*shape[:2], scheme.groups(inputs))
        scales = normal(*groups, seed=outputs) * 0.02
        zeros = torch.randint(0, top + 1, groups, generator=generator, dtype=torch.uint8)
        weight = QuantizedWeight(values, scales, zeros if scheme.zero_points else None)
        one = QuantizedLinearSpec(outputs, inputs, torch.float32, **vars(scheme))
        zero = weight.zeros if scheme.zero_points else [None] * spec.experts
        each = (QuantizedWeight(*parts) for parts in zip(values, scales, zero, strict=True))
        return weight, torch.stack([dequantize(one, own) for own in each])

    gate_up = draw(2 * spec.intermediate, spec.hidden)
    down = draw(spec.hidden, spec.intermediate)
    biases = list(vars(weights_of(spec)).values())[2:]
    few = QuantizedExpertWeights(gate_up[0], down[0], *biases)
    return few, ExpertWeights(gate_up[1], down[1], *biases)


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
@pytest.mark.parametrize("kind", list(KINDS))
def test_weights_of_few_bits_are_exact_but_for_the_rounding_of_activations(native, kind, scheme):
    spec, layer = KINDS[kind], NativeExperts(native)
    few, whole = quantized(spec, scheme)
    packed = layer.prepack(QuantizedExpertsSpec(**vars(spec), **vars(scheme)), few)
    for count in (1, 5, 40):
        given = tokens_of(spec, count)
        wanted = expected(spec, whole, *given)
        out = layer.apply(*given, packed).double()
        assert (out - wanted).norm() < 0.05 * wanted.norm()


def test_a_product_of_groups_leaves_out_the_empty_ones(native):
    weight, bias, x = normal(4, 33, 65), normal(4, 33, seed=1), normal(9, 65, seed=2)
    layer = NativeGroupedLinear(native)
    spec = GroupedLinearSpec(4, 33, 65, torch.float32, bias=True)
    ends = torch.tensor([0, 2, 2, 9], dtype=torch.int32)
    out = layer.apply(x, layer.prepack(spec, weight, bias), RowGroups(ends))
    owners = torch.tensor([1] * 2 + [3] * 7)
    wanted = torch.einsum("mk,mnk->mn", x.double(), weight.double()[owners]) + bias[owners]
    torch.testing.assert_close(out.double(), wanted, rtol=1e-5, atol=1e-5)


RULES = [
    {"top_k": 2},
    {"top_k": 3, "scores": "sigmoid", "renormalise": True, "scale": 2.5},
    {"top_k": 4, "over_chosen": True},
    {"top_k": 1, "over_chosen": True, "scores": "sigmoid"},
    {"top_k": 3, "groups": 4, "top_groups": 2, "group_experts": 2, "scores": "sigmoid"},
    {"top_k": 2, "groups": 6, "top_groups": 1, "renormalise": True},
]


@pytest.mark.parametrize("rules", RULES, ids=str)
def test_routers_choose_and_weigh_as_the_reference(native, rules):
    own = Routing(native).route
    for count, dtype in ((1, torch.float32), (37, torch.float32), (9, torch.bfloat16)):
        logits = torch.randperm(count * 24, generator=torch.Generator().manual_seed(count))
        logits = (logits.view(count, 24) / 100).to(dtype)
        for correction in (None, normal(24, seed=4) * 0.1):
            if correction is not None and rules.get("over_chosen"):
                continue
            found, wanted = (
                torch.zeros(count, 24).scatter_(1, *choose(logits, correction, **rules))
                for choose in (own, route)
            )
            torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-7)


def test_experts_chosen_one_after_the_other(native):
    logits = normal(40, 19, seed=5)
    found, weights = Routing(native).sparse_mixer(logits, jitter=0.05)
    experts, wanted = sparse_mixer(logits, jitter=0.05)
    assert found.equal(experts)
    torch.testing.assert_close(weights, wanted, rtol=1e-5, atol=1e-6)


def test_logits_that_are_no_numbers_still_choose_different_experts(native):
    logits = torch.full((3, 8), torch.nan)
    for rules in ({"top_k": 4}, {"top_k": 2, "groups": 4, "top_groups": 2}):
        experts, _ = Routing(native).route(logits, None, **rules)
        assert all(len(set(row)) == rules["top_k"] for row in experts.tolist())
        assert int(experts.min()) >= 0
        assert int(experts.max()) < 8
