"""Reasoning: begun by the model, by the template, closed by the template, or not there at all."""

from __future__ import annotations

import pytest

from inarch.parsing import ReasoningFormat
from inarch_formats.plugin import inarch_reasoning_formats

from .reading import assembled, deltas, read

FORMATS: dict[str, ReasoningFormat] = {f.name: f for f in inarch_reasoning_formats()}
BETWEEN_MARKERS = [name for name in FORMATS if name != "gpt-oss"]


def parts(name: str, text: str, prompt_end: str = "<|assistant|>\n") -> tuple[str, str]:
    """Reasoning and content, the same whole and character by character."""
    answer = read(FORMATS[name].parser(prompt_end), text)
    assert assembled(deltas(FORMATS[name].parser(prompt_end), text)).order == answer.order
    return answer.reasoning, answer.content


@pytest.mark.parametrize("name", BETWEEN_MARKERS)
class TestBetweenMarkers:
    @pytest.fixture
    def begin(self, name):
        return FORMATS[name].begin

    @pytest.fixture
    def end(self, name):
        return FORMATS[name].end

    def test_begun_by_the_model(self, name, begin, end):
        found = parts(name, f"\n{begin}\nSo: 2 < 3.\n{end}\n\nYes.\n")
        assert found == ("So: 2 < 3.", "Yes.\n")

    def test_begun_by_the_template(self, name, begin, end):
        assert parts(name, f"So.\n{end}\n\nYes.", f"user\n{begin}\n") == ("So.", "Yes.")
        assert parts(name, f"{end}Yes.", f"{begin}\n") == ("", "Yes.")

    def test_closed_by_the_template(self, name, begin, end):
        prompt_end = f"{begin}\n\n{end}\n\n"
        assert parts(name, "Yes.", prompt_end) == ("", "Yes.")
        assert parts(name, f"{begin} is a marker.", prompt_end) == ("", f"{begin} is a marker.")

    def test_not_there_at_all(self, name, begin, end):
        text = f"  Yes: {begin}no{end} is how they think."
        assert parts(name, text) == ("", text)

    def test_never_ended(self, name, begin, end):
        assert parts(name, f"{begin}So{end[:-1]}") == (f"So{end[:-1]}", "")

    def test_what_only_looks_like_a_marker(self, name, begin, end):
        assert parts(name, f"{begin}So {end[:-1]}! {end}Yes.") == (f"So {end[:-1]}!", "Yes.")
        assert parts(name, begin[:-1]) == ("", begin[:-1])


def test_kimi_may_go_from_reasoning_straight_to_its_calls():
    section = "<|tool_calls_section_begin|>"
    assert parts("kimi_k2", f"So. {section}", "<think>") == ("So.", section)
    assert parts("qwen3", f"So. {section}", "<think>") == (f"So. {section}", "")


def test_gpt_oss_reasons_in_a_channel():
    text = (
        "<|channel|>analysis<|message|>So.<|end|><|start|>assistant<|channel|>final<|message|>Yes."
    )
    assert parts("gpt-oss", text) == ("So.", "Yes.")
    assert text.index(FORMATS["gpt-oss"].end) == text.index("<|channel|>final")
