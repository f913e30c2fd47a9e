"""Which kernel serves an op, why, and what happens when none, or a broken one, is there."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import pytest
import torch

from inarch.errors import ConfigError, PluginError, UnsupportedError
from inarch.hal.dispatch import Choice, Dispatcher, explain
from inarch.hal.op import Facts, Kernel, op
from inarch.hal.ops.norm import add_rms_norm, rms_norm
from inarch.hal.support import Support, no, yes


def say(name: str) -> Kernel:
    """A kernel of rms_norm that returns its own name."""
    return Kernel("rms_norm", name, lambda *args: name)


def costing(name: str, cost: float) -> Kernel:
    return Kernel("rms_norm", name, lambda *args: name, lambda facts: yes(cost=cost))


def refusing(name: str, reason: str) -> Kernel:
    return Kernel("rms_norm", name, lambda *args: name, lambda facts: no(reason))


def served_by(*kernels: Kernel, **options: Any) -> str:
    dispatcher = Dispatcher(kernels, **options)
    bound = dispatcher.bind(rms_norm, dtype=torch.float32)
    name = dispatcher.choices[0].kernel
    assert name == "reference" or bound(None, None, 0) == name
    return name


def choice(*kernels: Kernel, **options: Any) -> Choice:
    dispatcher = Dispatcher(kernels, **options)
    dispatcher.bind(rms_norm)
    return dispatcher.choices[0]


def test_without_kernels_the_reference_serves() -> None:
    dispatcher = Dispatcher()
    assert dispatcher.bind(rms_norm) is rms_norm.reference
    assert dispatcher.choices[0].why == "reference"


def test_the_first_of_equally_cheap_kernels_serves() -> None:
    assert served_by(say("a"), say("b")) == "a"


def test_the_cheapest_kernel_serves_wherever_it_stands() -> None:
    assert served_by(costing("a", 2), costing("b", 0.5), costing("c", 1)) == "b"


def test_a_kernel_that_refuses_is_passed_over_and_its_reason_kept() -> None:
    chosen = choice(refusing("a", "needs head size 128"), say("b"))
    assert (chosen.kernel, chosen.why) == ("b", "preferred")
    assert chosen.rejected == (("a", "needs head size 128"),)


def test_a_choice_says_whom_it_was_preferred_to() -> None:
    assert choice(say("a"), costing("b", 3)).rejected == (("b", "behind a, cost 3"),)


def test_the_caveats_of_the_chosen_kernel_are_kept() -> None:
    kernel = Kernel("rms_norm", "a", print, lambda facts: yes("slow below 16 tokens"))
    assert choice(kernel).caveats == ("slow below 16 tokens",)


def test_kernels_are_asked_with_the_facts_of_the_binding() -> None:
    seen: list[Facts] = []

    def supports(facts: Facts) -> Support:
        seen.append(facts)
        return no("no")

    Dispatcher([Kernel("rms_norm", "a", print, supports)]).bind(rms_norm, dtype="x", size=4)
    assert seen == [{"dtype": "x", "size": 4}]


def test_a_refusal_needs_a_reason() -> None:
    for reasons in ((), ("",)):
        with pytest.raises(ValueError, match="needs a reason"):
            no(*reasons)


def test_an_exception_in_supports_is_the_plugins_fault_not_a_refusal() -> None:
    def supports(facts: Mapping[str, Any]) -> Support:
        raise KeyError("head_dim")

    with pytest.raises(PluginError, match=r"'a' of op 'rms_norm'.*KeyError.*head_dim"):
        Dispatcher([Kernel("rms_norm", "a", print, supports), say("b")]).bind(rms_norm)


def test_two_kernels_of_one_name_are_refused() -> None:
    with pytest.raises(PluginError, match="two kernels named 'a' for op 'rms_norm'"):
        Dispatcher([say("a"), say("a")])


def test_no_kernel_may_call_itself_the_reference() -> None:
    with pytest.raises(PluginError, match="reference"):
        Dispatcher([say("reference")])


def test_an_override_beats_the_cost_and_is_recorded() -> None:
    chosen = choice(say("a"), costing("b", 9), overrides={"rms_norm": "b"})
    assert (chosen.kernel, chosen.why) == ("b", "forced")
    assert chosen.rejected == (("a", "--kernels asks for b"),)


def test_an_override_may_ask_for_the_reference() -> None:
    assert served_by(say("a"), overrides={"rms_norm": "reference"}) == "reference"


def test_an_override_that_cannot_be_used_says_why() -> None:
    with pytest.raises(UnsupportedError, match=r"rms_norm=b cannot be used.*b: needs sm_100"):
        choice(say("a"), refusing("b", "needs sm_100"), overrides={"rms_norm": "b"})
    with pytest.raises(UnsupportedError, match="rms_norm=c cannot be used"):
        choice(say("a"), overrides={"rms_norm": "c"})


def test_an_override_of_everything_leaves_ops_without_such_a_kernel_to_the_reference() -> None:
    dispatcher = Dispatcher([say("a"), say("b")], overrides={"*": "b"})
    dispatcher.bind(rms_norm)
    dispatcher.bind(add_rms_norm)
    assert [c.kernel for c in dispatcher.choices if c.op == "rms_norm"] == ["b"]


def test_an_override_of_an_op_that_is_never_bound_is_an_error_at_the_end_of_start_up() -> None:
    dispatcher = Dispatcher([say("a")], overrides={"rms_nrom": "a", "*": "typo"})
    dispatcher.bind(rms_norm)
    message = r"rms_nrom=a, \*=typo: nothing takes it; the ops of the model are rms_norm"
    with pytest.raises(ConfigError, match=message):
        dispatcher.freeze()


def test_strict_refuses_the_reference_with_every_reason() -> None:
    with pytest.raises(UnsupportedError, match=r"rms_norm would run on the reference.*a: too old"):
        choice(refusing("a", "too old"), strict=True)
    with pytest.raises(UnsupportedError, match="the backend has no kernel"):
        choice(strict=True)


def test_strict_is_content_with_a_composite_whose_parts_all_have_kernels() -> None:
    dispatcher = Dispatcher([say("a")], strict=True)
    dispatcher.bind(add_rms_norm)
    assert {c.op: c.why for c in dispatcher.choices} == {
        "rms_norm": "preferred",
        "add_rms_norm": "parts",
    }


def test_a_composite_without_a_kernel_calls_the_backends_parts() -> None:
    part = Kernel("rms_norm", "a", lambda x, weight, eps: x * 10)
    bound = Dispatcher([part]).bind(add_rms_norm)
    normed, residual = bound(torch.ones(1, 2), torch.ones(1, 2), torch.ones(2), 1e-6)
    assert normed.tolist() == [[20, 20]]
    assert residual.tolist() == [[2, 2]]


def test_a_kernel_of_the_composite_beats_its_parts() -> None:
    whole = Kernel("add_rms_norm", "whole", lambda *args: "whole")
    assert Dispatcher([say("a"), whole]).bind(add_rms_norm)() == "whole"


def test_parts_of_parts_are_lowered_too() -> None:
    @op()
    def leaf(x: int) -> int:
        return x

    @op(parts=[leaf])
    def middle(x: int, *, leaf: Any = leaf) -> Any:
        return leaf(x)

    @op(parts=[middle])
    def top(x: int, *, middle: Any = middle) -> Any:
        return middle(x)

    assert top(1) == 1
    assert Dispatcher([Kernel("leaf", "a", lambda x: x + 1)]).bind(top)(1) == 2


def test_one_binding_serves_all_layers_with_equal_facts() -> None:
    asked = []
    kernel = Kernel("rms_norm", "a", print, lambda facts: asked.append(1) or yes())
    dispatcher = Dispatcher([kernel])
    assert dispatcher.bind(rms_norm, size=4) is dispatcher.bind(rms_norm, size=4)
    dispatcher.bind(rms_norm, size=8)
    assert len(asked) == 2


def test_after_freezing_only_what_was_bound_before_is_served() -> None:
    dispatcher = Dispatcher([say("a")])
    before = dispatcher.bind(rms_norm, size=4)
    dispatcher.freeze()
    assert dispatcher.bind(rms_norm, size=4) is before
    with pytest.raises(PluginError, match=r"rms_norm with .*8.* after start-up"):
        dispatcher.bind(rms_norm, size=8)


def test_the_digest_tells_choices_apart_but_not_the_order_of_binding() -> None:
    def digest(*sizes: int, kernel: str = "a") -> str:
        dispatcher = Dispatcher([say(kernel)])
        for size in sizes:
            dispatcher.bind(rms_norm, size=size)
        return dispatcher.digest()

    assert digest(4, 8) == digest(8, 4)
    assert len({digest(4), digest(8), digest(4, 8), digest(4, kernel="b")}) == 4


def test_a_kernel_given_by_name_is_imported_only_when_chosen(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "acme_lazy_kernel.py").write_text("def norm(x, weight, eps):\n    return 'lazy'\n")
    monkeypatch.syspath_prepend(tmp_path)
    kernel = Kernel("rms_norm", "lazy", "acme_lazy_kernel:norm")
    Dispatcher([kernel, costing("cheap", 0)]).bind(rms_norm)
    assert "acme_lazy_kernel" not in sys.modules
    assert Dispatcher([kernel]).bind(rms_norm)(0, 0, 0) == "lazy"


def test_facets_that_are_classes_are_chosen_by_the_same_rules() -> None:
    class Reference: ...

    class Fast: ...

    dispatcher = Dispatcher([Kernel("attention", "fast", Fast)])
    assert dispatcher.select("attention", Reference, window=None) is Fast
    assert dispatcher.select("linear", Reference) is Reference


def test_choices_that_differ_in_their_facts_alone_are_told_once() -> None:
    def row(width: int, kernel: str, why: str) -> Choice:
        return Choice("op", (("width", width),), kernel, why, ("slow",), (("x", "too wide"),))

    rows = [row(1, "a", "preferred"), row(2, "a", "preferred"), row(3, "reference", "reference")]
    assert explain(rows) == [
        ("op", "a", 2, "the best that applies; slow; not x: too wide"),
        ("op", "reference", 1, "no kernel applies; slow; not x: too wide"),
    ]
