"""A conversation becomes the very prompt that the Transformers library would make of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import models
from transformers import PreTrainedTokenizerFast

from inarch.engine.text.chat_template import ChatTemplate, given_template, read_templates
from inarch.errors import ConfigError, InvalidRequestError, ModelError

CHATML = """\
{%- if messages[0]['role'] != 'system' %}
    {{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}
{%- endif %}
{% for message in messages %}
    {%- if loop.index > 50 %}{% break %}{% endif %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content }}
    {%- if not loop.last or add_generation_prompt %}{{ '<|im_end|>' }}{% endif %}

{% endfor %}
{% if add_generation_prompt %}
{{ '<|im_start|>assistant' }}
{% if enable_thinking is defined and enable_thinking is false %}<think></think>{% endif %}
{% endif %}"""

LLAMA_3 = """\
{{- bos_token }}
{%- set loop_messages = messages %}
{%- for message in loop_messages %}
    {%- set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' %}
    {{- content + message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}
"""

MISTRAL = """\
{%- if messages[0]['role'] == 'system' %}
    {%- set system = messages[0]['content'] %}{%- set rest = messages[1:] %}
{%- else %}{%- set rest = messages %}{%- endif %}
{{- bos_token }}
{%- for message in rest %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('Roles must alternate user/assistant, <' + message['role'] + '>') }}
    {%- endif %}
    {%- if message['role'] == 'user' %}
        {%- if loop.last and system is defined %}
            {{- '[INST] ' + system + '\n\n' + message['content'] + '[/INST]' }}
        {%- else %}{{- '[INST] ' + message['content'] + '[/INST]' }}{%- endif %}
    {%- else %}
        {%- generation %}{{- ' ' + message['content'] + eos_token }}{% endgeneration %}
    {%- endif %}
{%- endfor %}"""

TOOLS = """\
{%- set ns = namespace(calls=0) %}
{%- if tools %}
{{ '# Tools' }}
    {% for tool in tools %}
{{ tool | tojson }}
{{ tool.function.parameters | tojson(indent=2) }}
{% endfor %}
{% endif %}
{% for message in messages %}
{% if message.tool_calls is defined %}
{% for call in message.tool_calls %}{% set ns.calls = ns.calls + 1 %}
<call {{ ns.calls }}>{{ call.function.name }}({{ call.function.arguments | tojson }})</call>
{%- for key, value in call.function.arguments.items() %} {{ key }}={{ value }};{% endfor %}

{% endfor %}
{% elif message.role == 'tool' %}
<result>{{ message.content }}</result>
{% else %}
{{ message.role }}: {{ message.content }}
{% endif %}
{% endfor %}"""

PARTS = """\
{% for message in messages %}{{ message.role }}:
{%- if message.content is string %} {{ message.content }}
{%- else %}{% for part in message.content %} <{{ part.type }}>{{ part.text }}{% endfor %}
{%- endif %};{% endfor %}"""

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
USER = [{"role": "user", "content": " What is 1 < 2 & 3?\n"}]
CHAT = [
    {"role": "system", "content": "Be kürz."},
    *USER,
    {"role": "assistant", "content": "Ja."},
    {"role": "user", "content": "日本 \"quoted\" {'a': 1}"},
]
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Über <b>rain</b> & wind",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
CALL = {"function": {"name": "weather", "arguments": {"city": "Zürich", "days": 2}}}
TOOL_CHAT = [
    *USER,
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "content": "rain"},
    {"role": "assistant", "content": "Take an umbrella.", "tool_calls": None},
]


def render(source: str, messages: list[Any], **options: Any) -> str:
    return ChatTemplate({"default": source}, SPECIAL).render(messages, **options)


def by_transformers(source: str, messages: list[Any], **options: Any) -> str:
    backend = Backend(models.BPE(vocab={"<s>": 0, "</s>": 1}, merges=[]))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **SPECIAL)
    text = tokenizer.apply_chat_template(messages, chat_template=source, tokenize=False, **options)
    assert isinstance(text, str)
    return text


@pytest.mark.parametrize("add_generation_prompt", [True, False])
@pytest.mark.parametrize("messages", [USER, CHAT], ids=["question", "conversation"])
@pytest.mark.parametrize(
    "source", [CHATML, LLAMA_3, MISTRAL, PARTS], ids=["chatml", "llama-3", "mistral", "parts"]
)
def test_the_prompt_is_the_one_that_transformers_makes(
    source: str, messages: list[Any], add_generation_prompt: bool
) -> None:
    options = {"add_generation_prompt": add_generation_prompt}

    assert render(source, messages, **options) == by_transformers(source, messages, **options)


def test_tools_and_tool_calls_are_written_as_transformers_writes_them() -> None:
    options = {"add_generation_prompt": True, "tools": [WEATHER]}
    prompt = render(TOOLS, TOOL_CHAT, **options)

    assert prompt == by_transformers(TOOLS, TOOL_CHAT, **options)
    assert "Über <b>rain</b> & wind" in prompt
    assert 'weather({"city": "Zürich", "days": 2})' in prompt


def test_tool_arguments_as_a_json_string_are_the_same_as_an_object() -> None:
    call = {"function": {"name": "weather", "arguments": '{"city": "Zürich", "days": 2}'}}
    messages = [*USER, {"role": "assistant", "tool_calls": [call]}, *TOOL_CHAT[2:]]

    assert render(TOOLS, messages) == render(TOOLS, TOOL_CHAT)
    assert call["function"]["arguments"] == '{"city": "Zürich", "days": 2}'


def test_further_variables_reach_the_template() -> None:
    plain = render(CHATML, USER)
    options = {"add_generation_prompt": True, "enable_thinking": False}

    assert render(CHATML, USER, variables={"enable_thinking": False}) != plain
    assert render(CHATML, USER, variables={"enable_thinking": False}) == by_transformers(
        CHATML, USER, **options
    )


def test_variables_cannot_replace_the_messages() -> None:
    assert render(CHATML, USER, variables={"messages": CHAT}) == render(CHATML, USER)


def test_the_date_can_be_asked_for() -> None:
    assert len(render("{{ strftime_now('%Y-%m-%d') }}", USER)) == len("2026-01-31")


def test_text_parts_are_joined_for_a_template_that_expects_a_string() -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]

    assert "user\none\ntwo<" in render(CHATML, [{"role": "user", "content": parts}])


@pytest.mark.parametrize(
    "loop",
    [
        "{% for part in message['content'] %}{{ part.text }}{% endfor %}",
        "{% set body = message.content %}{% for p in body %}{{ p.text }}{% endfor %}",
        "{{ message.content | map(attribute='text') | join }}",
    ],
)
def test_a_template_that_handles_parts_gets_them(loop: str) -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    source = "{% for message in messages %}" + loop + "{% endfor %}"

    assert render(source, [{"role": "user", "content": parts}]) == "onetwo"


def test_an_image_is_refused_by_a_template_that_knows_text_alone() -> None:
    parts = [{"type": "image_url", "image_url": {"url": "data:,"}}]

    with pytest.raises(InvalidRequestError, match="not message content of type 'image_url'"):
        render(CHATML, [{"role": "user", "content": parts}])


def test_what_the_template_refuses_is_told_in_its_own_words() -> None:
    with pytest.raises(InvalidRequestError, match=r"^Roles must alternate") as caught:
        render(MISTRAL, [*USER, *USER])

    assert caught.value.status == 400
    assert caught.value.param == "messages"


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([{"role": "user"}], "no attribute 'content'"),
        ([{"role": "user", "content": 7}], "cannot render these messages"),
        ([{"content": "text"}], "no attribute 'role'"),
        ([], "must not be empty"),
        (["text"], "must be an object, got str"),
    ],
)
def test_messages_that_break_the_template_are_the_clients_fault(
    messages: list[Any], reason: str
) -> None:
    with pytest.raises(InvalidRequestError, match=reason):
        render(CHATML, messages)


@pytest.mark.parametrize(
    "attack",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ strftime_now.__globals__.os }}",
    ],
)
def test_a_template_can_neither_reach_python_nor_change_what_it_is_given(attack: str) -> None:
    with pytest.raises(InvalidRequestError, match="unsafe"):
        render(attack, USER)


def test_without_a_template_the_cure_is_named() -> None:
    template = ChatTemplate({}, {})

    assert not template
    with pytest.raises(InvalidRequestError, match=r"--chat-template .* /v1/completions"):
        template.render(USER)


def test_a_malformed_template_says_where_it_is_wrong() -> None:
    with pytest.raises(InvalidRequestError, match="malformed in line 2"):
        render("\n{% if %}", USER)


def test_tools_choose_the_template_made_for_them() -> None:
    template = ChatTemplate({"default": "plain", "tool_use": "with tools"}, {})

    assert template.render(USER) == "plain"
    assert template.render(USER, tools=[]) == "plain"
    assert template.render(USER, tools=[WEATHER]) == "with tools"


def test_templates_without_a_default_are_named() -> None:
    with pytest.raises(InvalidRequestError, match=r"\(rag, tool_use\) is the default"):
        ChatTemplate({"tool_use": "", "rag": ""}, {}).render(USER)


def test_a_template_file_goes_before_the_one_in_the_config(tmp_path: Path) -> None:
    named = [{"name": "default", "template": "x"}, {"name": "tool_use", "template": "y"}]

    assert read_templates(tmp_path, {}) == {}
    assert read_templates(tmp_path, {"chat_template": "config"}) == {"default": "config"}
    assert read_templates(tmp_path, {"chat_template": named}) == {"default": "x", "tool_use": "y"}

    (tmp_path / "chat_template.jinja").write_text("file")
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "rag.jinja").write_text("rag")

    assert read_templates(tmp_path, {"chat_template": named}) == {"default": "file", "rag": "rag"}


def test_a_template_of_another_type_is_a_fault_of_the_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"chat_template must be .* got int"):
        read_templates(tmp_path, {"chat_template": json.loads("7")})


def test_a_template_can_be_given_as_a_file_or_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "mine.jinja"
    file.write_text("{{ messages[0].content }}", encoding="utf-8")

    assert given_template(str(file)) == given_template("{{ messages[0].content }}")


def test_a_given_template_that_cannot_be_used_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--chat-template .*missing\.jinja"):
        given_template(str(tmp_path / "missing.jinja"))
    with pytest.raises(ConfigError, match="--chat-template: line 1"):
        given_template("{% if %}")


def test_what_a_template_reads_beside_what_it_sets_itself_is_known() -> None:
    source = "{% set a = 1 %}{% if tools %}{{ a }}{{ enable_thinking }}{% endif %}"
    template = ChatTemplate({"default": source}, {})
    assert template.source == source
    assert {"tools", "enable_thinking"} <= template.variables
    assert "a" not in template.variables


def test_the_template_that_tools_would_reach_is_the_one_that_is_looked_at() -> None:
    template = ChatTemplate({"default": "{{ messages }}", "tool_use": "{{ tools }}"}, {})
    assert (template.source, "tools" in template.variables) == ("{{ tools }}", True)


def test_without_a_template_nothing_is_read() -> None:
    template = ChatTemplate({}, {})
    assert (template.source, template.variables) == ("", frozenset())
