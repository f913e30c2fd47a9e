"""/v1/tokenize and /v1/detokenize: what the tokenizer makes of a text or a conversation, and back."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web
from pydantic import Field, model_validator

from inarch.errors import InvalidRequestError
from inarch.sampling import check_token_ids
from inarch_server.answering.conversation import Conversation, rendered
from inarch_server.http.body import Body, read_body
from inarch_server.http.encoding import json_response
from inarch_server.openai.chat_protocol import FunctionTool, Message
from inarch_server.service import SERVICE


class TokenizeRequest(Body):
    """Exactly one of prompt and messages."""

    model: str | None = None
    prompt: str | list[str] | None = None
    add_special_tokens: bool = True  # of a prompt; a chat template writes its own
    messages: list[Message] | None = Field(default=None, min_length=1)
    tools: list[FunctionTool] | None = None
    continue_final_message: bool = False
    chat_template_kwargs: dict[str, Any] | None = None
    return_text: bool = False  # such as what the chat template makes of messages

    @model_validator(mode="after")
    def _one_of_two(self) -> TokenizeRequest:
        if (self.prompt is None) == (self.messages is None):
            raise InvalidRequestError(
                "exactly one of prompt and messages is needed", param="prompt"
            )
        return self


class DetokenizeRequest(Body):
    model: str | None = None
    tokens: list[int] | list[list[int]]
    skip_special_tokens: bool = True


async def tokenize(request: web.Request) -> web.Response:
    service = request.app[SERVICE]
    body = await read_body(request, TokenizeRequest)
    service.check_model(body.model)
    engine = service.engine

    def work() -> tuple[list[str], list[list[int]]]:
        if body.messages is not None:
            text = rendered(engine, _conversation(body))
            return [text], [engine.tokenizer.encode(text, add_special_tokens=False)]
        texts = body.prompt if isinstance(body.prompt, list) else [body.prompt or ""]
        return texts, [engine.tokenizer.encode(t, body.add_special_tokens) for t in texts]

    texts, found = await asyncio.to_thread(work)
    many = isinstance(body.prompt, list)
    return json_response(
        {
            "tokens": found if many else found[0],
            "count": [len(ids) for ids in found] if many else len(found[0]),
            "max_model_len": engine.info.context_length,
            **({"text": texts if many else texts[0]} if body.return_text else {}),
        }
    )


async def detokenize(request: web.Request) -> web.Response:
    service = request.app[SERVICE]
    body = await read_body(request, DetokenizeRequest)
    service.check_model(body.model)
    tokenizer, skip = service.engine.tokenizer, body.skip_special_tokens
    many = bool(body.tokens) and isinstance(body.tokens[0], list)
    lists: list[Any] = body.tokens if many else [body.tokens]
    for i, ids in enumerate(lists):
        where = f"tokens[{i}]" if many else "tokens"
        check_token_ids(ids, service.engine.info.vocab_size, param=where)
    texts = await asyncio.to_thread(lambda: [tokenizer.decode(ids, skip) for ids in lists])
    return json_response({"text": texts if many else texts[0]})


def _conversation(body: TokenizeRequest) -> Conversation:
    return Conversation(
        messages=[message.for_template() for message in body.messages or ()],
        tools=[tool.function.tool() for tool in body.tools or ()],
        continue_final=body.continue_final_message,
        variables=body.chat_template_kwargs or {},
    )
