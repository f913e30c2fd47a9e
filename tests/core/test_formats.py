"""Which formats are chosen for a model, and how reasoning and calls are read together."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from inarch.errors import ConfigError
from inarch.formats import Formats, choose_formats, parse
from inarch.parsing import Call, Content, Delta, Reasoning, Template, Tool
from inarch.plugins import Plugins, load_plugins
from inarch_formats.hermes import Hermes
from inarch_formats.thinking import Thinking

WEATHER = Tool("weather", {"type": "object"})
QWEN = Template("qwen3", "{{ '<tool_call>' }} {{ '</think>' }}")
UNKNOWN = Template("acme", "{{ messages }}")

ACME = """
class Acme:
    name, special, reasons = {name!r}, False, False
    def used_by(self, template): {used_by}
    def parser(self, tools): ...
    def grammar(self, tools, choice): ...

@hookimpl
def inarch_tool_formats():
    return [Acme()]
"""


@pytest.fixture(scope="module")
def installed() -> Plugins:
    return load_plugins()


def names(formats: Formats) -> tuple[str | None, str | None]:
    return (
        formats.tools.name if formats.tools else None,
        formats.reasoning.name if formats.reasoning else None,
    )


def test_a_template_tells_which_formats_its_model_uses(installed):
    assert names(choose_formats(installed, QWEN)) == ("hermes", "qwen3")


def test_a_model_without_a_format_of_its_own_gets_plain_json_and_no_reasoning(installed):
    assert names(choose_formats(installed, UNKNOWN)) == ("json", None)


def test_the_user_names_formats_and_turns_them_off(installed):
    named = choose_formats(
        installed, UNKNOWN, tool_call_parser="hermes", reasoning_parser="deepseek_r1"
    )
    assert names(named) == ("hermes", "deepseek_r1")
    off = choose_formats(installed, QWEN, tool_call_parser="none", reasoning_parser="none")
    assert names(off) == (None, None)


@pytest.mark.parametrize(
    ("option", "known"), [("tool_call_parser", "hermes"), ("reasoning_parser", "qwen3")]
)
def test_an_unknown_name_is_refused_with_those_there_are(installed, option, known):
    with pytest.raises(ConfigError, match=f"--{option.replace('_', '-')} acme.*{known}.*none"):
        choose_formats(installed, QWEN, **{option: "acme"})


def acme(packages, plugin: str, name: str, used_by: str) -> None:
    packages.add(plugin, ACME.format(name=name, used_by=used_by))


def test_a_name_that_two_plugins_use_is_refused(packages):
    acme(packages, "first", "acme", "return False")
    acme(packages, "second", "acme", "return False")
    with pytest.raises(ConfigError, match=r"first.*second"):
        choose_formats(load_plugins(entries=packages.entries()), QWEN, tool_call_parser="acme")


def test_a_format_that_fails_to_recognise_a_template_does_not_stop_the_next(packages):
    acme(packages, "first", "broken", "raise RuntimeError")
    acme(packages, "second", "acme", "return True")
    assert names(choose_formats(load_plugins(entries=packages.entries()), QWEN)) == ("acme", None)


def kinds(deltas: list[Delta]) -> list[type[Delta]]:
    return [type(delta) for delta in deltas]


ANSWER = 'hm <tool_call> or not</think>\n\nSee:\n<tool_call>{"name": "weather"}</tool_call>'


def test_markers_of_calls_within_reasoning_are_reasoning():
    parser = Formats(Hermes(), Thinking("think")).open_parser([WEATHER], "assistant\n<think>\n")
    reasoning, content, call, _ = parse(parser, ANSWER)
    assert reasoning == Reasoning("hm <tool_call> or not")
    assert content == Content("See:")
    assert call == Call(0, "weather")


def test_what_both_parsers_hold_back_comes_at_the_end():
    formats = Formats(Hermes(), Thinking("think"))
    found = parse(formats.open_parser([WEATHER], "<think>"), "hm</thi")
    assert "".join(delta.text for delta in found if isinstance(delta, Reasoning)) == "hm</thi"
    found = parse(formats.open_parser([WEATHER]), "Well <tool_ca")
    assert "".join(delta.text for delta in found if isinstance(delta, Content)) == "Well <tool_ca"


def test_without_tools_no_calls_are_looked_for():
    parser = Formats(Hermes(), Thinking("think")).open_parser([], "<think>\n")
    assert kinds(parse(parser, ANSWER)) == [Reasoning, Content]


def test_without_formats_all_is_content():
    assert parse(Formats().open_parser([WEATHER], "<think>"), ANSWER) == [Content(ANSWER)]


@dataclass(frozen=True)
class Both(Hermes):
    """A format of calls that tells reasoning apart itself."""

    reasons = True

    def parser(self, tools):
        return Formats(Hermes(), Thinking("think")).open_parser(tools)


def test_a_format_that_tells_reasoning_apart_itself_is_used_alone():
    text = f"<think>{ANSWER}"
    both = Formats(Both(), Thinking("think"))
    assert kinds(parse(both.open_parser([WEATHER]), text))[:2] == [Reasoning, Content]
    off = Formats(Both(), None)
    assert kinds(parse(off.open_parser([WEATHER]), text))[:2] == [Content, Content]


def test_special_tokens_are_kept_only_for_a_format_that_is_in_use():
    plain = Thinking("think", special=False)
    assert Formats(Hermes(), plain).special([WEATHER])
    assert not Formats(Hermes(), plain).special([])
    assert Formats(None, Thinking("think")).special([])
    assert not Formats(None, plain).special([WEATHER])
    assert not Formats().special([WEATHER])
