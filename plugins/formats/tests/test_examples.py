"""What models really write, format by format, and what it means."""

from __future__ import annotations

import json

import pytest

from inarch.parsing import ToolFormat
from inarch_formats.plugin import inarch_tool_formats

from .reading import TOOLS, assembled, deltas, read

FORMATS: dict[str, ToolFormat] = {format.name: format for format in inarch_tool_formats()}
PARIS = ("get_weather", {"city": "Paris"})
TIME = ("get_time", {})

# (format, text, content, calls); "" of content: none at all.
EXAMPLES = [
    ("hermes", "Just text, with <tags> and {braces}.", "Just text, with <tags> and {braces}.", []),
    (
        "hermes",
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>',
        "",
        [PARIS],
    ),
    (
        "hermes",
        'I look.\n\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "get_time", "arguments": {}}\n</tool_call>\n',
        "I look.",
        [PARIS, TIME],
    ),
    (
        "hermes",
        '<tool_call>{"arguments": {"city": "Paris"}, "name": "get_weather"}</tool_call> Done.',
        "Done.",
        [PARIS],
    ),
    ("hermes", '<tool_call>{"name": "get_time"}</tool_call>', "", [TIME]),
    (
        "hermes",  # a brace is missing, as Qwen2.5 does at times; nothing comes of it
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}\n</tool_call>',
        "",
        [PARIS],
    ),
    (
        "hermes",  # </tool_call> is missing: the answer ended with the call
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}',
        "",
        [PARIS],
    ),
    (
        "hermes",
        '<tool_call>{"name": "rm_rf", "arguments": {}}</tool_call>',
        '<tool_call>{"name": "rm_rf", "arguments": {}}</tool_call>',
        [],
    ),
    (
        "qwen3_coder",
        "Let me see.\n\n<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n"
        "<parameter=days>\n3\n</parameter>\n<parameter=metric>\nTrue\n</parameter>\n"
        '<parameter=tags>\n["a", "b"]\n</parameter>\n<parameter=near>\n{"lat": 1.50}\n</parameter>\n'
        "</function>\n</tool_call>",
        "Let me see.",
        [
            (
                "get_weather",
                {
                    "city": "Paris",
                    "days": 3,
                    "metric": True,
                    "tags": ["a", "b"],
                    "near": {"lat": 1.5},
                },
            )
        ],
    ),
    (
        "qwen3_coder",  # no <tool_call>, which the smaller models forget; lines of code as a value
        "<function=get_weather>\n<parameter=city>\n  if a < b:\n    pass\n\n</parameter>\n</function>",
        "",
        [("get_weather", {"city": "  if a < b:\n    pass\n"})],
    ),
    (
        "qwen3_coder",
        "<tool_call>\n<function=get_time>\n</function>\n</tool_call>\n<tool_call>\n"
        "<function=get_weather>\n<parameter=city>\n12\n</parameter>\n</function>\n</tool_call>",
        "",
        [TIME, ("get_weather", {"city": "12"})],
    ),
    (
        "minimax_m2",
        '<minimax:tool_call>\n<invoke name="get_weather">\n<parameter name="city">Paris</parameter>\n'
        '<parameter name="days">2</parameter>\n</invoke>\n<invoke name="get_time">\n</invoke>\n'
        "</minimax:tool_call>",
        "",
        [("get_weather", {"city": "Paris", "days": 2}), TIME],
    ),
    (
        "glm45",
        "I look.\n<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Paris</arg_value>\n"
        "<arg_key>days</arg_key>\n<arg_value>3</arg_value>\n</tool_call>\n<tool_call>get_time\n"
        "</tool_call>",
        "I look.",
        [("get_weather", {"city": "Paris", "days": 3}), TIME],
    ),
    (
        "glm45",  # GLM 4.7 writes no line breaks
        "<tool_call>get_weather<arg_key>city</arg_key><arg_value>北京</arg_value></tool_call>"
        "<tool_call>get_time</tool_call>",
        "",
        [("get_weather", {"city": "北京"}), TIME],
    ),
    (
        "deepseek_v3",
        "I look.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n"
        '```json\n{"city": "Paris"}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>'
        "get_time\n```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        "I look.",
        [PARIS, TIME],
    ),
    (
        "deepseek_v31",
        '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{"city": "Paris"}'
        "<｜tool▁call▁end｜><｜tool▁call▁begin｜>get_time<｜tool▁sep｜>{}<｜tool▁call▁end｜>"
        "<｜tool▁calls▁end｜>",
        "",
        [PARIS, TIME],
    ),
    (
        "kimi_k2",
        "I look.<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0"
        '<|tool_call_argument_begin|>{"city": "Paris"}<|tool_call_end|><|tool_call_begin|>'
        "functions.get_time:1<|tool_call_argument_begin|>{}<|tool_call_end|>"
        "<|tool_calls_section_end|>",
        "I look.",
        [PARIS, TIME],
    ),
    (
        "mistral",
        '[TOOL_CALLS][{"name": "get_weather", "arguments": {"city": "Paris"}}, '
        '{"name": "get_time", "id": "a1B2c3D4e", "arguments": {}}]',
        "",
        [PARIS, TIME],
    ),
    (
        "mistral",
        'I look.[TOOL_CALLS]get_weather[ARGS]{"city": "Paris"}[TOOL_CALLS]get_time[CALL_ID]a1B2c3D4e'
        "[ARGS]{}",
        "I look.",
        [PARIS, TIME],
    ),
    ("mistral", '[TOOL_CALLS]get_weather{"city": "Paris"}', "", [PARIS]),
    ("llama3_json", '{"name": "get_weather", "parameters": {"city": "Paris"}}', "", [PARIS]),
    (
        "llama3_json",
        '<|python_tag|>{"type": "function", "name": "get_weather", "parameters": {"city": "Paris"}}; '
        '{"name": "get_time", "parameters": {}}',
        "",
        [PARIS, TIME],
    ),
    (
        "llama3_json",
        'I look: {"name": "get_time", "parameters": {}}\n{"name": "get_weather", '
        '"parameters": {"city": "Paris"}}',
        "I look:",
        [TIME, PARIS],
    ),
    ("llama3_json", '{"temperature": 3}', '{"temperature": 3}', []),
    ("llama3_json", '{"name": "Paris", "size": 2}', '{"name": "Paris", "size": 2}', []),
    ("json", '[{"name": "get_weather", "arguments": {"city": "Paris"}}]', "", [PARIS]),
    ("json", ' {"name": "get_time", "arguments": {}}\n', "", [TIME]),
    (
        "pythonic",
        '[get_weather(city="Paris", days=3, metric=True, tags=["a", \'b\'], near={"lat": -1.5}), '
        "get_time()]",
        "",
        [
            (
                "get_weather",
                {
                    "city": "Paris",
                    "days": 3,
                    "metric": True,
                    "tags": ["a", "b"],
                    "near": {"lat": -1.5},
                },
            ),
            TIME,
        ],
    ),
    (
        "pythonic",
        "<|python_start|>[get_weather(city='it\\'s \"Paris\"\\n\\u00e9')]<|python_end|>",
        "",
        [("get_weather", {"city": 'it\'s "Paris"\né'})],
    ),
    ("pythonic", "A list: [1, 2] and [get_time]", "A list: [1, 2] and [get_time]", []),
    ("pythonic", '[get_weather("Paris")]', '[get_weather("Paris")]', []),
    (
        "gpt-oss",
        "<|channel|>analysis<|message|>Weather, so a call.<|end|><|start|>assistant<|channel|>"
        "commentary to=functions.get_weather <|constrain|>json<|message|>"
        '{"city": "Paris"}<|call|>',
        "",
        [PARIS],
    ),
    (
        "gpt-oss",  # the recipient before the channel; the stop token is not part of the text
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant to=functions.get_weather"
        '<|channel|>commentary json<|message|>{"city": "Paris"}',
        "",
        [PARIS],
    ),
    (
        "gpt-oss",
        "<|channel|>commentary<|message|>I look.<|end|><|start|>assistant<|channel|>commentary "
        "to=functions.get_time<|message|><|call|>",
        "I look.",
        [TIME],
    ),
    (
        "gpt-oss",
        "<|channel|>analysis<|message|>Easy.<|end|><|start|>assistant<|channel|>final<|message|>"
        "It is 4.\n<|return|>",
        "It is 4.",
        [],
    ),
    ("gpt-oss", "The model forgot its channels.", "The model forgot its channels.", []),
]


@pytest.mark.parametrize(("name", "text", "content", "calls"), EXAMPLES)
@pytest.mark.parametrize("size", [None, 1, 3], ids=["whole", "characters", "tokens"])
def test_an_answer_means_what_its_model_meant(name, text, content, calls, size):
    pieces = [text] if size is None else [text[i : i + size] for i in range(0, len(text), size)]
    parser = FORMATS[name].parser(TOOLS)

    answer = assembled(deltas(parser, pieces))
    assert answer.content == content
    assert [(tool, json.loads(arguments)) for tool, arguments in answer.calls] == calls


def test_every_format_has_an_example():
    assert {name for name, *_ in EXAMPLES} == set(FORMATS)


def test_arguments_that_are_json_are_passed_on_as_they_were_written():
    written = '{ "city" : "Par\\u0069s",\n "days":3.0 }'
    text = f'<tool_call>{{"name": "get_weather", "arguments": {written}}}</tool_call>'
    assert read(FORMATS["hermes"].parser(TOOLS), text).calls == [("get_weather", written)]


def test_a_call_that_breaks_off_keeps_its_arguments_and_the_rest_is_content():
    text = (
        '<tool_call>{"name": "get_weather", "arguments": {"city": ["Paris"}} oh</tool_call>'
        '<tool_call>{"name": "get_time"}</tool_call>'
    )
    assert read(FORMATS["hermes"].parser(TOOLS), text).order == [
        ("call 0", 'get_weather {"city": ["Paris"'),
        ("content", "}} oh"),
        ("call 1", "get_time {}"),
    ]


def test_kimi_calls_keep_the_ids_that_the_model_gave_them():
    (example,) = [text for name, text, *_ in EXAMPLES if name == "kimi_k2"]
    ids = read(FORMATS["kimi_k2"].parser(TOOLS), example).ids
    assert ids == ["functions.get_weather:0", "functions.get_time:1"]


def test_mistral_calls_have_ids_of_nine_letters_or_digits():
    for text in (text for name, text, *_ in EXAMPLES if name == "mistral"):
        ids = read(FORMATS["mistral"].parser(TOOLS), text).ids
        assert all(id is not None and len(id) == 9 and id.isalnum() for id in ids)
        assert len(set(ids)) == len(ids)
        assert ("a1B2c3D4e" in text) == ("a1B2c3D4e" in ids)


def test_an_id_that_mistral_templates_would_refuse_is_replaced():
    text = '[TOOL_CALLS][{"name": "get_time", "id": "call_1", "arguments": {}}]'
    (id,) = read(FORMATS["mistral"].parser(TOOLS), text).ids
    assert id is not None
    assert len(id) == 9


def test_gpt_oss_reasoning_is_no_content():
    (example,) = [text for name, text, *_ in EXAMPLES if "It is 4." in text]
    assert read(FORMATS["gpt-oss"].parser(TOOLS), example).order == [
        ("reasoning", "Easy."),
        ("content", "It is 4."),
    ]
