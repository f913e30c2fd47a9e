"""Which formats a chat template tells of: by what stands in the templates of real models."""

from __future__ import annotations

import pytest

from inarch.formats import choose_formats
from inarch.parsing import Template
from inarch.plugins import load_plugins

DEEPSEEK = "<｜tool▁calls▁begin｜>' + tool{}['name'] + '<｜tool▁sep｜>' {} '</think>'"
THINK = "{%- set content = content.split('</think>')[-1] %}"
TEMPLATES = [  # (model_type, what stands in the template, tool format, reasoning format)
    ("qwen2", '<tool_call>\\n{"name": <function-name>, "arguments"', "hermes", None),
    ("qwen3", '<tool_call>\\n{"name": <function-name>' + THINK, "hermes", "qwen3"),
    ("qwen3_moe", "<tool_call>\\n<function=example_function_name>", "qwen3_coder", None),
    ("glm4_moe", "<tool_call>{function-name}\\n<arg_key>{arg-key-1}" + THINK, "glm45", "glm45"),
    ("minimax_m2", "{%- set begin = '<minimax:tool_call>' -%}<invoke name=" + THINK,
     "minimax_m2", "minimax_m2"),
    ("deepseek_v3", DEEPSEEK.format("['function']", "+ '```json'"), "deepseek_v3", "deepseek_r1"),
    ("deepseek_v3", DEEPSEEK.format("", ""), "deepseek_v31", "deepseek_r1"),
    ("kimi_k2", "<|tool_calls_section_begin|><|tool_call_begin|>" + THINK, "kimi_k2", "kimi_k2"),
    ("kimi_vl", "◁think▷ ◁/think▷", "json", "kimi"),
    ("mistral", "'[TOOL_CALLS]' + name + '[ARGS]'", "mistral", None),
    ("mistral3", "[TOOL_CALLS] [THINK] [/THINK]", "mistral", "mistral"),
    ("llama", 'Respond in the format {"name": function name, "parameters": dict', "llama3_json", None),
    ("llama", "<|python_tag|>", "llama3_json", None),
    ("llama4", "in the format of [func_name1(params_name1=params_value1...)]", "pythonic", None),
    ("gpt_oss", "<|start|>assistant<|channel|>analysis<|message|>", "gpt-oss", "gpt-oss"),
    ("acme", THINK, "json", "think"),
    ("acme", "{{ messages }}", "json", None),
    ("acme", "", "json", None),
]  # fmt: skip


@pytest.mark.parametrize(("model_type", "source", "tools", "reasoning"), TEMPLATES)
def test_a_template_tells_the_formats_of_its_model(model_type, source, tools, reasoning):
    formats = choose_formats(load_plugins(), Template(model_type, source))
    assert formats.tools is not None
    assert formats.tools.name == tools
    assert (formats.reasoning and formats.reasoning.name) == reasoning
