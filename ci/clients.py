"""Ask a running server through LiteLLM in each API that it knows, with tools and schemas, and compare.

    pip install 'inarch[clients]'    # in an environment of its own: it brings another openai along
    inarch serve & python ci/clients.py http://localhost:8000 inarch-tiny

The server's description of itself is tried by schemathesis, from the same extra:

    schemathesis run http://localhost:8000/openapi.json --phases fuzzing
"""

from __future__ import annotations

import json
import sys
from typing import Any

import litellm

QUESTION = [{"role": "user", "content": "What is the capital of Spain?"}]
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["Rome", "Oslo"]}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}
FORMAT = {"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA}}
# Provider, where its API begins, and whether it can say that a call must come.
PROVIDERS = (("openai", "/v1", True), ("anthropic", "", True), ("ollama_chat", "", False))


def main(url: str, model: str) -> None:
    answers = set()
    for provider, path, chooses in PROVIDERS:
        common: dict[str, Any] = {
            "model": f"{provider}/{model}",
            "api_base": url + path,
            "api_key": "any",
            "messages": QUESTION,
            "max_tokens": 100,
            "temperature": 0,
        }
        whole = litellm.completion(**common).choices[0].message.content
        chunks = litellm.completion(**common, stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole
        held = litellm.completion(**common, response_format=FORMAT).choices[0].message.content
        assert json.loads(held)["city"] in ("Rome", "Oslo")
        if chooses:
            called = litellm.completion(**common, tools=[TOOL], tool_choice="required").choices[0]
            assert called.finish_reason == "tool_calls"
            arguments = called.message.tool_calls[0].function.arguments
            assert json.loads(arguments)["city"] in ("Rome", "Oslo")
        answers.add(whole)
        print(f"{provider}: {whole}")
    assert len(answers) == 1, "one model, one question, no chance: one answer"


if __name__ == "__main__":
    main(*sys.argv[1:])
