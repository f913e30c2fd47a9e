"""JSON schemas of what the routes answer: the fields that a client may rely on."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0}
NUMBER: Schema = {"type": "number"}
PROBABILITY: Schema = {"type": "number", "minimum": 0, "maximum": 1}


def const(value: str) -> Schema:
    return {"const": value}


def maybe(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def one_or_many(schema: Schema) -> Schema:
    return {"anyOf": [schema, listed(schema)]}


def listed(schema: Schema) -> Schema:
    return {"type": "array", "items": schema}


def record(**fields: Schema) -> Schema:
    """An object that has at least these fields."""
    return {"type": "object", "properties": fields, "required": list(fields)}


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


USAGE = record(
    prompt_tokens=COUNT,
    completion_tokens=COUNT,
    total_tokens=COUNT,
    prompt_tokens_details=record(cached_tokens=COUNT),
)
NEWER_USAGE = record(
    input_tokens=COUNT,
    input_tokens_details=record(cached_tokens=COUNT, cache_write_tokens=COUNT),
    output_tokens=COUNT,
    output_tokens_details=record(reasoning_tokens=COUNT),
    total_tokens=COUNT,
)
ANTHROPIC_USAGE = record(
    input_tokens=COUNT,
    cache_creation_input_tokens=COUNT,
    cache_read_input_tokens=COUNT,
    output_tokens=COUNT,
    output_tokens_details=record(thinking_tokens=COUNT),
)
CALL = record(id=TEXT, type=const("function"), function=record(name=TEXT, arguments=TEXT))
MESSAGE = record(role=const("assistant"), content=maybe(TEXT))
MESSAGE["properties"] |= {"reasoning_content": TEXT, "reasoning": TEXT, "tool_calls": listed(CALL)}
LOGPROBS = maybe({"type": "object"})
VECTOR = listed(NUMBER)
GENERATED = record(text=TEXT, output_ids=listed(COUNT), meta_info={"type": "object"})


def _openai(kind: str, choice: Schema) -> Schema:
    return record(
        id=TEXT, object=const(kind), created=COUNT, model=TEXT, choices=listed(choice), usage=USAGE
    )


def _ollama(**said: Schema) -> Schema:
    """Durations and counts are absent where nothing was said."""
    return record(model=TEXT, created_at=TEXT, done={"type": "boolean"}, done_reason=TEXT, **said)


def _answers() -> list[Schema]:
    name = maybe(TEXT)
    return [
        record(type=const("predicate"), name=name, probability=PROBABILITY),
        record(
            type=const("choice"),
            name=name,
            choice={"type": ["string", "boolean"]},
            confidence=PROBABILITY,
            probabilities=listed(
                record(value={"type": ["string", "boolean"]}, probability=PROBABILITY)
            ),
        ),
        record(
            type=const("score"),
            name=name,
            score={"type": "number", "minimum": 0},
            confidence=PROBABILITY,
            probabilities=listed(record(label=TEXT, value=COUNT, probability=PROBABILITY)),
        ),
    ]


ANSWERS: dict[str, Schema] = {
    "Error": record(error=record(message=TEXT, type=TEXT, param=maybe(TEXT), code=maybe(TEXT))),
    "AnthropicError": record(type=const("error"), error=record(type=TEXT, message=TEXT)),
    "OllamaError": record(error=TEXT),
    "ItemList": record(
        object=const("list"),
        data=listed({"type": "object"}),
        first_id=maybe(TEXT),
        last_id=maybe(TEXT),
        has_more={"type": "boolean"},
    ),
    "Status": record(status=const("ok")),
    "Live": record(
        model=TEXT,
        alive={"type": "boolean"},
        engine=maybe(record(running=COUNT, waiting=COUNT)),
        generated_per_s={"type": "number"},
        prompt_per_s={"type": "number"},
        cache_hit_rate=PROBABILITY,
        requests=listed(record(id=TEXT, route=TEXT, prompt_tokens=COUNT, completion_tokens=COUNT)),
        errors=listed(record(route=TEXT, status=COUNT, message=TEXT, times=COUNT)),
    ),
    "Kernels": record(
        backend=TEXT,
        device=TEXT,
        ops=listed(record(op=TEXT, kernel=TEXT, bindings=COUNT, why=TEXT)),
    ),
    "CacheTree": record(
        tokens=COUNT, nodes=listed(record(id=COUNT, parent=COUNT, tokens=COUNT, text=maybe(TEXT)))
    ),
    "Model": record(
        id=TEXT, object=const("model"), created=COUNT, owned_by=TEXT, max_model_len=COUNT
    ),
    "Models": record(object=const("list"), data=listed(ref("Model"))),
    "ChatCompletion": _openai(
        "chat.completion",
        record(index=COUNT, message=MESSAGE, logprobs=LOGPROBS, finish_reason=TEXT),
    ),
    "Completion": _openai(
        "text_completion", record(index=COUNT, text=TEXT, logprobs=LOGPROBS, finish_reason=TEXT)
    ),
    "Response": record(
        id=TEXT,
        object=const("response"),
        created_at=COUNT,
        status={"enum": ["completed", "incomplete", "failed"]},
        model=TEXT,
        output=listed(record(id=TEXT, type={"enum": ["message", "function_call", "reasoning"]})),
        usage=NEWER_USAGE,
    ),
    "AnthropicMessage": record(
        id=TEXT,
        type=const("message"),
        role=const("assistant"),
        model=TEXT,
        content=listed(record(type={"enum": ["text", "thinking", "tool_use"]})),
        stop_reason=TEXT,
        stop_sequence=maybe(TEXT),
        usage=ANTHROPIC_USAGE,
    ),
    "OllamaChat": _ollama(message=record(role=const("assistant"), content=TEXT)),
    "OllamaGenerated": _ollama(response=TEXT),
    "OllamaModels": record(models=listed(record(name=TEXT, model=TEXT, size=COUNT, digest=TEXT))),
    "OllamaModel": record(
        template=TEXT, parameters=TEXT, capabilities=listed(TEXT), model_info={"type": "object"}
    ),
    "Version": record(version=TEXT),
    "TokenCount": record(input_tokens=COUNT),
    "Deleted": record(id=TEXT, object=TEXT, deleted={"const": True}),
    "Decision": record(answers=listed({"anyOf": _answers()}), model=TEXT, usage=NEWER_USAGE),
    "Embeddings": record(
        object=const("list"),
        data=listed(
            record(
                object=const("embedding"),
                index=COUNT,
                embedding={"anyOf": [VECTOR, listed(VECTOR), TEXT]},
            )
        ),
        model=TEXT,
        usage=record(prompt_tokens=COUNT, total_tokens=COUNT),
    ),
    "Ranking": record(
        id=TEXT,
        model=TEXT,
        results=listed(record(index=COUNT, relevance_score=NUMBER)),
        usage=USAGE,
    ),
    "Scores": {
        "anyOf": [
            record(
                id=TEXT,
                object=const("list"),
                model=TEXT,
                data=listed(record(index=COUNT, object=const("score"), score=NUMBER)),
                usage=USAGE,
            ),
            record(scores=listed(VECTOR), object=const("scoring"), model=TEXT, usage=USAGE),
        ]
    },
    "Classes": record(
        id=TEXT,
        object=const("list"),
        model=TEXT,
        data=listed(record(index=COUNT, label=one_or_many(TEXT), num_classes=COUNT)),
        usage=USAGE,
    ),
    "Encoded": one_or_many(
        record(embedding={"anyOf": [VECTOR, listed(VECTOR)]}, meta_info={"type": "object"})
    ),
    "Tokens": record(
        tokens=one_or_many(listed(COUNT)),
        count=one_or_many(COUNT),
        max_model_len=COUNT,
    ),
    "Text": record(text=one_or_many(TEXT)),
    "Object": {"type": "object"},
    "Name": TEXT,
    "Generated": one_or_many(GENERATED),
}
