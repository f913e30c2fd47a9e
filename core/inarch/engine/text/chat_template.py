"""From a conversation to the prompt that a model was trained on, by the model's own Jinja template.

Templates come with a model and are not to be trusted: they run in Jinja's immutable sandbox, with
the few extras that the Transformers library gives them, so that a template means here what it means
there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import meta, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from inarch.errors import ConfigError, InvalidRequestError, ModelError

PART_FILTERS = {"selectattr", "rejectattr", "map"}  # filters that work on a list of parts


class ChatTemplate:
    """The templates of a model by name ("default", "tool_use") and the special tokens they name."""

    def __init__(self, sources: Mapping[str, str], special_tokens: Mapping[str, str]) -> None:
        self._sources = dict(sources)
        self._special_tokens = dict(special_tokens)
        self._compiled: dict[str, _Compiled] = {}

    def __bool__(self) -> bool:
        return bool(self._sources)

    @property
    def source(self) -> str:
        """Jinja source of the template that tools would reach; "" if there is none."""
        return self._sources.get("tool_use") or self._sources.get("default", "")

    @property
    def variables(self) -> frozenset[str]:
        """What that template reads beside what it sets itself: "tools", "enable_thinking" ..."""
        name = "tool_use" if "tool_use" in self._sources else "default"
        return self._compile(name).variables if name in self._sources else frozenset()

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """The prompt text, special tokens written out: encode it without adding any.

        `variables` are what else the template may read, such as enable_thinking. Raises
        InvalidRequestError if there is no template or if it refuses these messages.
        """
        if not messages:
            raise InvalidRequestError("messages must not be empty", param="messages")
        template = self._compile(self._choose(tools))
        context = {
            **self._special_tokens,
            **(variables or {}),
            "messages": [_for_template(message, template.takes_parts) for message in messages],
            "tools": tools,
            "add_generation_prompt": add_generation_prompt,
        }
        return _render(template.template, context)

    def _choose(self, tools: Sequence[Mapping[str, Any]] | None) -> str:
        if not self._sources:
            raise InvalidRequestError(
                "this model has no chat template: give one with --chat-template FILE when "
                "starting, or send a plain prompt to /v1/completions"
            )
        if tools and "tool_use" in self._sources:
            return "tool_use"
        if "default" in self._sources:
            return "default"
        raise InvalidRequestError(
            f"none of this model's chat templates ({', '.join(sorted(self._sources))}) is the "
            "default: give one with --chat-template FILE when starting"
        )

    def _compile(self, name: str) -> _Compiled:
        if name not in self._compiled:
            try:
                self._compiled[name] = _compile(self._sources[name])
            except jinja2.TemplateSyntaxError as error:
                raise InvalidRequestError(
                    f"this model's chat template ({name}) is malformed in line {error.lineno}: "
                    f"{error.message}; give another with --chat-template FILE when starting"
                ) from None
        return self._compiled[name]


@dataclass(frozen=True)
class _Compiled:
    template: jinja2.Template
    takes_parts: bool  # whether it reads message content that is a list of parts
    variables: frozenset[str]  # that it reads and does not set


class _Refusal(jinja2.TemplateError):
    """The template itself said no."""


class _GenerationTag(Extension):
    """{% generation %} marks for trainers what an assistant said; here it is a mere block."""

    tags = {"generation"}  # noqa: RUF012 - how jinja2 declares it

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body).set_lineno(line)


def read_templates(folder: Path, tokenizer_config: Mapping[str, Any]) -> dict[str, str]:
    """The templates of a model folder by name; files go before tokenizer_config.json."""
    templates = _from_config(tokenizer_config.get("chat_template"))
    files = {path.stem: path for path in sorted(folder.glob("additional_chat_templates/*.jinja"))}
    if (main := folder / "chat_template.jinja").is_file():
        files["default"] = main
    try:
        from_files = {name: path.read_text(encoding="utf-8") for name, path in files.items()}
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"cannot read the chat template of {folder}: {error}") from None
    return from_files or templates


def given_template(path_or_text: str) -> dict[str, str]:
    """The template that --chat-template names or spells out. Raises ConfigError if unusable."""
    try:
        text = path_or_text
        if "{%" not in text and "{{" not in text:
            text = Path(path_or_text).read_text(encoding="utf-8")
        _compile(text)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--chat-template {path_or_text}: {error}") from None
    except jinja2.TemplateSyntaxError as error:
        raise ConfigError(f"--chat-template: line {error.lineno}: {error.message}") from None
    return {"default": text}


def _from_config(value: Any) -> dict[str, str]:
    """tokenizer_config.json has one template, or a list of named ones."""
    match value:
        case None:
            return {}
        case str():
            return {"default": value}
        case dict():
            return {str(name): str(text) for name, text in value.items()}
        case list() if all(isinstance(v, dict) and {"name", "template"} <= v.keys() for v in value):
            return {str(entry["name"]): str(entry["template"]) for entry in value}
    raise ModelError(
        f"tokenizer_config.json: chat_template must be a string or a list of "
        f'{{"name", "template"}}, got {type(value).__name__}'
    )


def _compile(source: str) -> _Compiled:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda format: datetime.now().strftime(format)
    parsed = environment.parse(source)
    variables = frozenset(meta.find_undeclared_variables(parsed))
    return _Compiled(environment.from_string(source), _takes_parts(parsed), variables)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Unlike Jinja's own, does not escape <, > and & for HTML."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise_exception(message: object) -> None:
    raise _Refusal(str(message))


def _render(template: jinja2.Template, context: dict[str, Any]) -> str:
    try:
        return template.render(context)
    except _Refusal as error:
        raise InvalidRequestError(str(error), param="messages") from None
    # A template meets whatever the client sent; any failure in it is about these messages.
    except Exception as error:
        raise InvalidRequestError(
            f"the chat template cannot render these messages: {error or type(error).__name__}",
            param="messages",
        ) from None


def _takes_parts(template: nodes.Template) -> bool:
    """Whether it loops over message content, rather than printing it as it is."""
    names = {"content"}
    for assignment in template.find_all(nodes.Assign):
        if isinstance(assignment.target, nodes.Name) and _is_content(assignment.node, names):
            names.add(assignment.target.name)
    looped = any(_is_content(loop.iter, names) for loop in template.find_all(nodes.For))
    return looped or any(
        filter.name in PART_FILTERS and filter.node is not None and _is_content(filter.node, names)
        for filter in template.find_all(nodes.Filter)
    )


def _is_content(node: nodes.Node, names: set[str]) -> bool:
    match node:
        case nodes.Getattr(attr="content"):
            return True
        case nodes.Getitem(arg=nodes.Const(value="content")):
            return True
        case nodes.Name(name=name):
            return name in names
    return False


def _for_template(message: Mapping[str, Any], takes_parts: bool) -> dict[str, Any]:
    """An OpenAI message as templates expect it: no nulls, arguments of tool calls as objects."""
    if not isinstance(message, Mapping):
        raise InvalidRequestError(
            f"a message must be an object, got {type(message).__name__}", param="messages"
        )
    result = {key: value for key, value in message.items() if value is not None}
    if isinstance(result.get("content"), list) and not takes_parts:
        result["content"] = _flatten(result["content"])
    if isinstance(result.get("tool_calls"), list):
        result["tool_calls"] = [_with_object_arguments(call) for call in result["tool_calls"]]
    return result


def _flatten(parts: list[Any]) -> str:
    texts = []
    for part in parts:
        match part:
            case str() as text:
                texts.append(text)
            case {"type": "text", "text": str(text)}:
                texts.append(text)
            case _:
                kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
                raise InvalidRequestError(
                    f"this model understands text alone, not message content of type {kind!r}",
                    param="messages",
                )
    return "\n".join(texts)


def _with_object_arguments(call: Any) -> Any:
    """The API has arguments as a JSON string; templates print or walk an object."""
    match call:
        case {"function": {"arguments": str(arguments)}}:
            try:
                parsed = json.loads(arguments)
            except ValueError:
                return call
            if isinstance(parsed, dict):
                return {**call, "function": {**call["function"], "arguments": parsed}}
    return call
