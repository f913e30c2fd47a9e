"""/v1/chat/completions, as OpenAI's own client understands it."""

from __future__ import annotations

import msgspec

from .harness import Server, messages
from .standin import EOS, StandIn, byte_tokenizer

CHAT = "/v1/chat/completions"
PROMPT = "user: Hi\nassistant: "  # what the stand-in's template makes of messages("Hi")


def test_an_answer_has_text_usage_and_finish_reason(server: Server) -> None:
    with server.openai() as client:
        answer = client.chat.completions.create(model="standin", messages=messages("Hi"))
    assert answer.id.startswith("chatcmpl-")
    assert (answer.object, answer.model) == ("chat.completion", "standin")
    (choice,) = answer.choices
    assert (choice.index, choice.message.role, choice.finish_reason) == (0, "assistant", "stop")
    assert choice.message.content == PROMPT
    assert answer.usage.prompt_tokens == len(PROMPT)
    assert answer.usage.completion_tokens == len(PROMPT) + 1  # with the end of sequence
    assert answer.usage.total_tokens == 2 * len(PROMPT) + 1


def test_a_stream_says_the_role_once_then_text_then_why_it_ended(server: Server) -> None:
    with server.openai() as client:
        chunks = list(
            client.chat.completions.create(model="standin", messages=messages("Hi"), stream=True)
        )
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert [delta.role for delta in deltas] == ["assistant"] + [None] * (len(deltas) - 1)
    assert "".join(delta.content for delta in deltas) == PROMPT
    reasons = [chunk.choices[0].finish_reason for chunk in chunks]
    assert reasons == [None] * (len(chunks) - 1) + ["stop"]
    assert {chunk.id for chunk in chunks} == {chunks[0].id}
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}


def test_usage_comes_in_a_last_chunk_without_choices(server: Server) -> None:
    with server.openai() as client:
        *chunks, last = client.chat.completions.create(
            model="standin",
            messages=messages("Hi"),
            stream=True,
            stream_options={"include_usage": True},
        )
    assert last.choices == []
    assert last.usage.completion_tokens == len(PROMPT) + 1
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)


def test_continuous_usage_grows_with_every_chunk(server: Server) -> None:
    body = {
        "messages": messages("Hi"),
        "stream": True,
        "stream_options": {"continuous_usage_stats": True},
    }
    counts = [e["usage"]["completion_tokens"] for e in server.post(CHAT, body).events]
    assert counts == sorted(counts)
    assert counts[-1] == len(PROMPT) + 1


def test_n_samples_come_as_choices_by_index(server: Server) -> None:
    with server.openai() as client:
        answer = client.chat.completions.create(model="standin", messages=messages("Hi"), n=3)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert {choice.message.content for choice in answer.choices} == {PROMPT}
    # The prompt counts once.
    assert answer.usage.prompt_tokens == len(PROMPT)
    assert answer.usage.completion_tokens == 3 * (len(PROMPT) + 1)
    assert answer.usage.prompt_tokens_details.cached_tokens == 0


def test_n_streams_are_told_apart_by_index(server: Server) -> None:
    texts = ["", "", ""]
    with server.openai() as client:
        for chunk in client.chat.completions.create(
            model="standin", messages=messages("Hi"), n=3, stream=True
        ):
            (choice,) = chunk.choices
            texts[choice.index] += choice.delta.content
    assert texts == [PROMPT] * 3


def test_logprobs_list_every_token_with_its_bytes_and_alternatives(server: Server) -> None:
    with server.openai() as client:
        answer = client.chat.completions.create(
            model="standin", messages=messages("Hé"), logprobs=True, top_logprobs=2
        )
    content = answer.choices[0].logprobs.content
    assert len(content) == answer.usage.completion_tokens
    first, *_ = content
    assert (first.token, first.bytes, first.logprob) == ("u", [ord("u")], -0.5)
    assert [(top.token, top.logprob) for top in first.top_logprobs] == [("u", -0.5), ("\n", -9999)]
    half = next(token for token in content if token.bytes == [0xC3])
    assert half.token == r"bytes:\xc3"


def test_streamed_logprobs_are_as_many_as_tokens(server: Server) -> None:
    body = {"messages": messages("Hi"), "logprobs": True, "stream": True}
    events = server.post(CHAT, body).events
    tokens = [t for e in events for t in e["choices"][0]["logprobs"]["content"]]
    assert len(tokens) == len(PROMPT) + 1
    assert (tokens[0]["token"], tokens[-1]["token"]) == ("u", "</s>")


def test_max_completion_tokens_wins_over_max_tokens(server: Server) -> None:
    body = {"messages": messages("Hi"), "max_tokens": 3, "max_completion_tokens": 5}
    choice = server.post(CHAT, body).json["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == (PROMPT[:5], "length")


def test_without_max_tokens_the_answer_may_fill_the_context(server: Server) -> None:
    server.post(CHAT, {"messages": messages("Hi")})
    assert server.engine.asked[-1][1].max_tokens is None


def test_stop_may_be_one_string_or_several(server: Server) -> None:
    for stop in ("\n", ["zzz", "\n"]):
        body = {"messages": messages("Hi"), "stop": stop}
        choice = server.post(CHAT, body).json["choices"][0]
        assert (choice["message"]["content"], choice["finish_reason"]) == ("user: Hi", "stop")


def test_every_sampling_field_reaches_the_engine(server: Server) -> None:
    fields = {
        "max_tokens": 7,
        "min_tokens": 2,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40,
        "min_p": 0.05,
        "repetition_penalty": 1.1,
        "frequency_penalty": 0.2,
        "presence_penalty": -0.3,
        "ignore_eos": True,
        "seed": 42,
        "n": 2,
        "skip_special_tokens": False,
    }
    odd = {"logit_bias": {"65": -100}, "stop": "x", "stop_token_ids": [7], "no_stop_trim": True}
    assert server.post(CHAT, {"messages": messages("Hi"), **fields, **odd}).status == 200
    params = server.engine.asked[-1][1]
    assert {name: getattr(params, name) for name in fields} == fields
    assert params.logit_bias == {65: -100.0}
    assert (params.stop, params.stop_token_ids, params.include_stop) == (("x",), (7,), True)


def test_null_means_the_same_as_leaving_a_field_out(server: Server) -> None:
    nulls = dict.fromkeys(["temperature", "max_tokens", "stop", "n", "seed", "logit_bias", "user"])
    assert server.post(CHAT, {"messages": messages("Hi"), "tools": None, **nulls}).status == 200
    assert server.engine.asked[-1][1].temperature == 1.0


def test_content_parts_of_text_are_joined(server: Server) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    answer = server.post(CHAT, {"messages": [{"role": "user", "content": parts}]})
    assert answer.json["choices"][0]["message"]["content"].startswith("user: a\nb\n")


def test_a_begun_answer_is_continued(server: Server) -> None:
    conversation = [*messages("Hi"), {"role": "assistant", "content": "Hel"}]
    body = {"messages": conversation, "continue_final_message": True}
    assert server.post(CHAT, body).json["choices"][0]["message"]["content"] == PROMPT + "Hel"


def test_the_chat_template_can_be_given_variables(server: Server) -> None:
    body = {"messages": messages("Hi"), "chat_template_kwargs": {"add_generation_prompt": False}}
    assert server.post(CHAT, body).json["choices"][0]["message"]["content"] == "user: Hi\n"


def test_a_refusal_of_the_chat_template_is_the_clients_error(server: Server) -> None:
    conversation = [{"role": "system", "content": "Be brief."}, *messages("Hi")]
    answer = server.post(CHAT, {"messages": conversation})
    assert (answer.status, answer.error["param"]) == (400, "messages")
    assert "no system here" in answer.error["message"]


def test_a_model_without_chat_template_points_to_completions() -> None:
    with Server(StandIn(template=None)) as server:
        answer = server.post(CHAT, {"messages": messages("Hi")})
    assert answer.status == 400
    assert "/v1/completions" in answer.error["message"]


def test_the_models_own_defaults_hold_where_the_request_is_silent() -> None:
    with Server(StandIn(default_sampling={"temperature": 0.6, "top_k": 20})) as server:
        server.post(CHAT, {"messages": messages("Hi"), "top_k": 5})
        params = server.engine.asked[-1][1]
    assert (params.temperature, params.top_k) == (0.6, 5)


def test_only_a_plain_prompt_gets_the_tokens_that_begin_a_text(server: Server) -> None:
    server.engine.tokenizer = byte_tokenizer(begins=True)
    server.post("/v1/completions", {"prompt": "Hi"})
    assert server.engine.asked[-1][0] == [EOS, *b"Hi"]
    # A chat template writes them itself, if the model wants them.
    server.post(CHAT, {"messages": messages("Hi")})
    assert server.engine.asked[-1][0] == list(PROMPT.encode())


def test_a_long_conversation_is_tokenized_like_a_short_one(server: Server) -> None:
    server.engine.info = msgspec.structs.replace(
        server.engine.info, context_length=100_000, max_request_tokens=100_000
    )
    server.post(CHAT, {"messages": messages("x" * 50_000), "max_tokens": 1})
    assert len(server.engine.asked[-1][0]) == 50_000 + len(PROMPT) - len("Hi")


def test_the_name_to_serve_under_can_be_chosen() -> None:
    with Server(StandIn(name="mine")) as server:
        assert server.post(CHAT, {"model": "mine", "messages": messages("Hi")}).status == 200
        refused = server.post(CHAT, {"model": "gpt-4", "messages": messages("Hi")})
    assert (refused.status, refused.error["code"]) == (404, "model_not_found")
    assert "'gpt-4'" in refused.error["message"]
    assert "'mine'" in refused.error["message"]
