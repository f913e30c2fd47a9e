"""What a request may hold its answer to, in OpenAI's words and in others', as a grammar."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from pydantic import Field, model_validator

from inarch.errors import InvalidRequestError
from inarch.grammar import Grammar, Kind
from inarch.sampling import SamplingParams
from inarch_server.answering.closing import closed
from inarch_server.http.body import Body, path


class JsonSchema(Body):
    """Every answer is held to its schema, or the schema refused; `strict` closes its objects."""

    name: str | None = None
    description: str | None = None
    schema_: dict[str, Any] | bool | None = Field(default=None, alias="schema")
    strict: bool | None = None


class ResponseFormat(Body):
    type: Literal["text", "json_object", "json_schema", "structural_tag"]
    json_schema: JsonSchema | None = None
    # Free text in which tags begin parts that are held: either of two notations.
    structures: list[dict[str, Any]] | None = None
    triggers: list[str] | None = None
    format: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _complete(self) -> ResponseFormat:
        if self.type == "json_schema" and self.json_schema is None:
            raise ValueError("the type json_schema needs the field json_schema")
        if self.type == "structural_tag" and self.format is None and self.structures is None:
            raise ValueError("the type structural_tag needs the field format, or structures")
        return self

    def grammar(self) -> Grammar | None:
        match self.type:
            case "text":
                return None
            case "json_object":
                return Grammar(kind="json_object")
            case "json_schema":
                assert self.json_schema is not None
                strict = self.json_schema.strict is True
                return json_grammar(self.json_schema.schema_, strict=strict)
            case "structural_tag":
                tag = self.model_dump(exclude_none=True, exclude={"json_schema"})
                return Grammar(kind="structural_tag", source=_text(tag))


def hold_to(params: SamplingParams, format: ResponseFormat | None) -> SamplingParams:
    """`params` with the grammar of `format`. Raises InvalidRequestError if they have another one."""
    grammar = format.grammar() if format is not None else None
    return hold_grammar(params, grammar, "response_format")


def hold_grammar(params: SamplingParams, grammar: Grammar | None, called: str) -> SamplingParams:
    """The same for a grammar, which is in the field `called` of the request."""
    if grammar is None:
        return params
    if params.grammar is not None:
        raise InvalidRequestError(
            f"{called} and {params.grammar.kind} both say what the answer may be: send one of them",
            param=called,
        )
    return msgspec.structs.replace(params, grammar=grammar)


class Constraints(Body):
    """Extensions of other open servers; at most one of them."""

    regex: str | None = None
    ebnf: str | None = None
    json_schema: str | dict[str, Any] | None = None
    structural_tag: str | dict[str, Any] | None = None

    def constraint(self, under: str = "") -> Grammar | None:
        """Raises InvalidRequestError for several at once; `under` is the path of this object."""
        kinds: tuple[Kind, ...] = ("regex", "ebnf", "json_schema", "structural_tag")
        given = [kind for kind in kinds if getattr(self, kind) is not None]
        if len(given) > 1:
            raise InvalidRequestError(
                f"{' and '.join(given)} all say what the answer may be: send one of them",
                param=path([under, given[1]]),
            )
        if not given:
            return None
        value = getattr(self, given[0])
        return Grammar(kind=given[0], source=value if isinstance(value, str) else _text(value))


def json_grammar(schema: dict[str, Any] | bool | None, *, strict: bool = False) -> Grammar:
    """Answers that fit a schema; without one, any JSON object. strict: only the properties that the
    schema declares."""
    if schema is None:
        return Grammar(kind="json_object")
    return Grammar(kind="json_schema", source=_text(closed(schema) if strict else schema))


def _text(value: Any) -> str:
    return msgspec.json.encode(value).decode()
