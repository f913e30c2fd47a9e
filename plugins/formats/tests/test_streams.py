"""What holds for every format: the split of a text changes nothing, and nothing leaks or is lost."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inarch.formats import Formats
from inarch.parsing import Parser, ToolFormat
from inarch_formats.markup import MARKUPS
from inarch_formats.plugin import inarch_reasoning_formats, inarch_tool_formats

from .reading import TIME, TOOLS, WEATHER, Answer, assembled, deltas, read

TOOL_FORMATS: dict[str, ToolFormat] = {format.name: format for format in inarch_tool_formats()}
REASONING_FORMATS = {format.name: format for format in inarch_reasoning_formats()}
Arguments = dict[str, Any]

# ---- well-formed answers ----


def markup(name: str) -> Callable[[str, Arguments], str]:
    (format,) = (format for format in MARKUPS if format.name == name)
    line = "\n" if format.trim else ""

    def write(tool: str, arguments: Arguments) -> str:
        end = format.name_ends[0]
        text = f"{format.begin}{format.call}{tool}{end}"
        for key, value in arguments.items():
            shown = value if isinstance(value, str) else json.dumps(value)
            text += f"{format.key}{key}{format.key_end}{format.value}"
            text += f"{line}{shown}{line}{format.value_end}\n"
        return f"{text}{format.call_end}{format.end}"

    return write


WRITERS: dict[str, Callable[[str, Arguments], str]] = {
    "hermes": lambda tool, a: (
        f'<tool_call>\n{{"name": "{tool}", "arguments": {json.dumps(a)}}}\n</tool_call>'
    ),
    "json": lambda tool, a: f'{{"name": "{tool}", "arguments": {json.dumps(a)}}}',
    "llama3_json": lambda tool, a: (
        f'<|python_tag|>{{"name": "{tool}", "parameters": {json.dumps(a)}}}'
    ),
    "mistral": lambda tool, a: f"[TOOL_CALLS]{tool}[ARGS]{json.dumps(a, ensure_ascii=False)}",
    "kimi_k2": lambda tool, a: (
        f"<|tool_calls_section_begin|><|tool_call_begin|>functions.{tool}:0"
        f"<|tool_call_argument_begin|>{json.dumps(a)}<|tool_call_end|><|tool_calls_section_end|>"
    ),
    "deepseek_v3": lambda tool, a: (
        f"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>{tool}\n```json\n"
        f"{json.dumps(a, indent=1)}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
    ),
    "deepseek_v31": lambda tool, a: (
        f"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>{tool}<｜tool▁sep｜>{json.dumps(a)}"
        "<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
    ),
    "pythonic": lambda tool, a: f"[{tool}({', '.join(f'{k}={v!r}' for k, v in a.items())})]",
    "gpt-oss": lambda tool, a: (
        f"<|channel|>commentary to=functions.{tool} <|constrain|>json<|message|>{json.dumps(a)}<|call|>"
    ),
    **{format.name: markup(format.name) for format in MARKUPS},
}

FRAGMENTS = [  # that a reader may stumble over, within strings
    *('"', "'", "\\", "\\n", "\n", "{", "}", "[", "]", "</", "<", ">", "é", "\U0001f600", " ", "a"),
    *(
        "<tool_call>",
        "</tool_call>",
        "</think>",
        "[TOOL_CALLS]",
        "get_time(",
        '{"name": "get_time"',
    ),
    *("<｜tool▁call▁end｜>", "<|tool_call_end|>", "<|call|>", "<arg_key>", "```", '"""'),
]
STRINGS = st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=3), max_size=5).map("".join)
ENDS = tuple(format.value_end for format in MARKUPS)
CALLS = st.one_of(
    st.just((TIME.name, {})),
    st.tuples(
        st.just(WEATHER.name),
        st.fixed_dictionaries(
            {"city": STRINGS.filter(lambda text: not any(end in text for end in ENDS))},
            optional={
                "days": st.integers(),
                "metric": st.booleans(),
                "tags": st.lists(STRINGS, max_size=2),
                "near": st.fixed_dictionaries({"lat": st.floats(-90, 90)}),
            },
        ),
    ),
)
WORDS = st.sampled_from(["Well,\n\nso", "<b>7</b> < 8 & {a} [b] (c)", "1. yes\n2. no", "été"])


@pytest.mark.parametrize("name", TOOL_FORMATS)
@given(
    calls=st.lists(CALLS, min_size=1, max_size=3),
    words=st.lists(WORDS, min_size=3, max_size=3),
    text=st.sampled_from([True, False]),
)
@settings(max_examples=40, deadline=None)
def test_well_formed_calls_are_read_back_and_no_marker_leaks(name, calls, words, text):
    """Text before the calls and behind them, if `text`; white space at the seams is the format's."""
    start = "<|start|>assistant" if name == "gpt-oss" else "\n"
    message = "<|channel|>final<|message|>{}<|end|><|start|>assistant".format
    written = start.join(WRITERS[name](tool, arguments) for tool, arguments in calls)
    before = (message(words[0]) if name == "gpt-oss" else words[0] + "\n") if text else ""
    after = (
        ("<|start|>assistant" + message(words[2])[:-18] if name == "gpt-oss" else words[2])
        if text
        else ""
    )
    if name in ("json", "pythonic") and after.startswith(("[", "{")):
        after = ""
    answer = read(TOOL_FORMATS[name].parser(TOOLS), before + written + after)
    assert [(tool, json.loads(arguments)) for tool, arguments in answer.calls] == calls
    assert answer.content == (words[0] + words[2] if text else "")


# ---- any text at all ----

SOUP = (
    *(
        '{"name": "get_weather", "arguments": ',
        '{"name": "get_time"',
        '"parameters": {}',
        '"id": "x"',
    ),
    *(
        '{"city": "Paris"}',
        "{}",
        "{",
        "}",
        "[",
        "]",
        ",",
        ";",
        ":",
        '"',
        "\\",
        "(",
        ")",
        "=",
        "city",
    ),
    *("get_weather", "get_time", "rm_rf", "get_", "get_time(", "[get_time(", "[get_weather(city="),
    *("'", '"""', "1", "-2.5", "True", "null", "\\u00e9", "\\ud83d", "é", " ", "\n", "\n\n", "  "),
    *(
        "<tool_call>",
        "</tool_call>",
        "<function=get_time>",
        "<function=get_weather>",
        "</function>",
    ),
    *("<parameter=city>", "</parameter>", "<parameter=days>", "<arg_key>", "</arg_key>"),
    *("<arg_value>", "</arg_value>", "<minimax:tool_call>", "</minimax:tool_call>", "</invoke>"),
    *('<invoke name="get_time">', '<parameter name="city">', "<|python_tag|>", "<|python_start|>"),
    *("[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", "a1B2c3D4e", "<|python_end|>", "0", "functions."),
    *(
        "<｜tool▁calls▁begin｜>",
        "<｜tool▁call▁begin｜>",
        "function<｜tool▁sep｜>",
        "\n```json\n",
        "```",
    ),
    *(
        "<｜tool▁sep｜>",
        "<｜tool▁call▁end｜>",
        "<｜tool▁calls▁end｜>",
        "<|tool_calls_section_begin|>",
    ),
    *("<|tool_call_begin|>", "<|tool_call_argument_begin|>", "<|tool_call_end|>", ":0"),
    *(
        "<|tool_calls_section_end|>",
        "<|channel|>",
        "<|message|>",
        "<|start|>",
        "<|end|>",
        "<|call|>",
    ),
    *("analysis", "final", "commentary", "assistant", " to=functions.get_time", "<|return|>"),
    *(
        "<think>",
        "</think>",
        "◁think▷",
        "◁/think▷",
        "[THINK]",
        "[/THINK]",
        "<",
        "<tool",
        "</",
        "<|",
    ),
)
SOUPS = st.lists(st.sampled_from(SOUP) | st.text(max_size=3), max_size=12).map("".join)


def written_calls(name: str) -> st.SearchStrategy[str]:
    """Well-formed calls of a format, perhaps broken: a piece is cut out, or soup is put in."""
    call = CALLS.map(lambda call: WRITERS[name](*call))

    @st.composite
    def broken(draw: st.DrawFn) -> str:
        text = "".join(draw(st.lists(call | SOUPS, max_size=3)))
        start = draw(st.integers(0, len(text)))
        return text[:start] + draw(SOUPS) + text[start + draw(st.integers(0, 5)) :]

    return broken()


def pieces(draw: st.DrawFn, text: str) -> list[str]:
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=12)))
    return [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]


def same(one: Answer, other: Answer) -> bool:
    """Ids are made up by some formats."""
    return one.order == other.order and one.calls == other.calls


@pytest.mark.parametrize("name", TOOL_FORMATS)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_the_split_of_a_text_changes_nothing(name, data):
    text = data.draw(written_calls(name))
    reasoning = data.draw(st.sampled_from([None, *REASONING_FORMATS.values()]))
    formats = Formats(TOOL_FORMATS[name], reasoning)
    prompt_end = data.draw(st.sampled_from(["", "<think>\n", "<think>\n\n</think>\n\n"]))

    def open_parser() -> Parser:
        return formats.open_parser(TOOLS, prompt_end)

    whole = read(open_parser(), text)
    assert same(whole, assembled(deltas(open_parser(), text))), "character by character"
    assert same(whole, assembled(deltas(open_parser(), pieces(data.draw, text))))


@pytest.mark.parametrize("name", REASONING_FORMATS)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_the_split_of_reasoning_changes_nothing(name, data):
    text = data.draw(SOUPS)
    prompt_end = data.draw(st.sampled_from(["", "<think>\n", "◁think▷", "</think>\n\n"]))

    def open_parser() -> Parser:
        return REASONING_FORMATS[name].parser(prompt_end)

    whole = read(open_parser(), text)
    assert same(whole, assembled(deltas(open_parser(), text)))
    assert same(whole, assembled(deltas(open_parser(), pieces(data.draw, text))))


def squeezed(text: str) -> str:
    return "".join(text.split())


@pytest.mark.parametrize("name", TOOL_FORMATS)
@given(text=SOUPS)
@settings(max_examples=60, deadline=None)
def test_what_is_no_call_is_content_to_the_last_character(name, text):
    """But for the markers of messages, which in gpt-oss stand around all that is said."""
    answer = read(TOOL_FORMATS[name].parser(TOOLS), text)
    if not answer.calls and name != "gpt-oss":
        assert answer.content == text


@pytest.mark.parametrize("name", TOOL_FORMATS)
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_a_call_that_is_cut_off_keeps_its_arguments_so_far(name, data):
    call = data.draw(CALLS)
    text = WRITERS[name](*call)
    whole = read(TOOL_FORMATS[name].parser(TOOLS), text)
    cut = data.draw(st.integers(0, len(text)))
    answer = read(TOOL_FORMATS[name].parser(TOOLS), text[:cut])
    if not answer.calls:
        assert answer.content == text[:cut] or name == "gpt-oss"
        return
    assert answer.content == answer.reasoning == ""
    ((tool, arguments),) = answer.calls
    assert tool == call[0]
    assert whole.calls[0][1].startswith(arguments) or name in {format.name for format in MARKUPS}
