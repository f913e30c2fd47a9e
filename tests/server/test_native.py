"""/generate: SGLang's names for requests and answers."""

from __future__ import annotations

import itertools

import pytest

from .harness import Server

GENERATE = "/generate"


def ids(text: str) -> list[int]:
    return list(text.encode())


def test_one_text_gives_one_object(server: Server) -> None:
    result = server.post(GENERATE, {"text": "one", "rid": "mine"}).json
    assert result["text"] == "one"
    assert result["output_ids"] == [*ids("one"), 256]
    meta = result["meta_info"]
    assert (meta["id"], meta["prompt_tokens"], meta["completion_tokens"]) == ("mine", 3, 4)
    assert meta["finish_reason"] == {"type": "stop", "matched": 256}
    assert meta["cached_tokens"] == 0
    assert "output_token_logprobs" not in meta


def test_input_ids_work_like_text(server: Server) -> None:
    assert server.post(GENERATE, {"input_ids": ids("one")}).json["text"] == "one"


@pytest.mark.parametrize(
    "body",
    [
        {"text": ["one", "two"]},
        {"input_ids": [ids("one"), ids("two")]},
    ],
    ids=["texts", "lists of token ids"],
)
def test_a_batch_gives_a_list(server: Server, body: dict[str, object]) -> None:
    results = server.post(GENERATE, body).json
    assert [result["text"] for result in results] == ["one", "two"]
    # A list of one prompt is a batch too.
    single = {name: value[:1] for name, value in body.items()}
    assert [result["text"] for result in server.post(GENERATE, single).json] == ["one"]


def test_n_samples_of_one_text_give_a_list(server: Server) -> None:
    results = server.post(GENERATE, {"text": "one", "sampling_params": {"n": 2}}).json
    assert [result["text"] for result in results] == ["one", "one"]


def test_every_prompt_may_have_its_own_parameters_and_rid(server: Server) -> None:
    body = {
        "text": ["one", "two"],
        "sampling_params": [{"max_new_tokens": 1}, {"max_new_tokens": 2}],
        "rid": ["a", "b"],
    }
    results = server.post(GENERATE, body).json
    assert [(r["text"], r["meta_info"]["id"]) for r in results] == [("o", "a"), ("tw", "b")]
    assert results[1]["meta_info"]["finish_reason"] == {"type": "length", "length": 2}


def test_a_stream_repeats_the_whole_text_so_far(server: Server) -> None:
    events = server.post(GENERATE, {"text": "one", "stream": True}).events
    texts = [event["text"] for event in events]
    assert texts[-1] == "one"
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(texts))
    assert events[-1]["output_ids"] == [*ids("one"), 256]
    assert [e["meta_info"]["finish_reason"] is None for e in events[:-1]] == [True] * (
        len(events) - 1
    )
    assert all("index" not in event for event in events)


def test_streams_of_a_batch_are_told_apart_by_index(server: Server) -> None:
    events = server.post(GENERATE, {"text": ["one", "two"], "stream": True}).events
    last = {event["index"]: event["text"] for event in events}
    assert last == {0: "one", 1: "two"}


def test_logprobs_are_triples_with_text_on_request(server: Server) -> None:
    body = {"text": "ab", "return_logprob": True, "top_logprobs_num": 2}
    meta = server.post(GENERATE, body).json["meta_info"]
    assert meta["output_token_logprobs"] == [[-0.5, t, None] for t in (97, 98, 256)]
    assert meta["output_top_logprobs"][0] == [[-0.5, 97, None], [-9999, 10, None]]
    meta = server.post(GENERATE, body | {"return_text_in_logprobs": True}).json["meta_info"]
    assert meta["output_token_logprobs"][0] == [-0.5, 97, "a"]


def test_sampling_fields_have_sglangs_names(server: Server) -> None:
    said = {
        "max_new_tokens": 9,
        "min_new_tokens": 2,
        "sampling_seed": 5,
        "no_stop_trim": True,
        "stop": ["b"],
        "temperature": 0,
    }
    result = server.post(GENERATE, {"text": "abc", "sampling_params": said}).json
    params = server.engine.asked[-1][1]
    assert (params.max_tokens, params.min_tokens, params.seed) == (9, 2, 5)
    assert (result["text"], params.temperature) == ("ab", 0.0)
    assert result["meta_info"]["finish_reason"] == {"type": "stop", "matched": "b"}


def test_an_answer_has_128_tokens_unless_said_otherwise(server: Server) -> None:
    server.post(GENERATE, {"text": "one"})
    assert server.engine.asked[-1][1].max_tokens == 128


def test_log_probabilities_of_prompt_and_answer_in_sglangs_shape(server: Server) -> None:
    body = {
        "text": "abc", "return_logprob": True, "logprob_start_len": 1, "top_logprobs_num": 2,
        "token_ids_logprob": [7, 3], "return_text_in_logprobs": True,
        "sampling_params": {"max_new_tokens": 1},
    }  # fmt: skip
    meta = server.post(GENERATE, body).json["meta_info"]
    named = [[-7.0, 7, "\x07"], [-3.0, 3, "\x03"]]
    assert meta["input_token_logprobs"] == [[None, 98, "b"], [-0.5, 99, "c"]]
    assert meta["input_top_logprobs"] == [None, [[-0.5, 99, "c"], [-9999.0, 10, "\n"]]]
    assert meta["input_token_ids_logprobs"] == [None, named]
    assert meta["output_token_logprobs"] == [[-0.5, 97, "a"]]
    assert meta["output_token_ids_logprobs"] == [named]
    (_, params) = server.engine.asked[0]
    assert (params.prompt_logprobs, params.logprob_start) == (2, 2)


def test_without_a_start_nothing_is_asked_about_the_prompt(server: Server) -> None:
    meta = server.post(GENERATE, {"text": "abc", "return_logprob": True}).json["meta_info"]
    assert meta["input_token_logprobs"] == []
    assert "input_top_logprobs" not in meta
    assert server.engine.asked[0][1].prompt_logprobs is None


def test_every_prompt_may_ask_for_other_log_probabilities(server: Server) -> None:
    body = {
        "text": ["ab", "cd", "ef"],
        "return_logprob": [True, False, True],
        "logprob_start_len": [0, -1, 1],
        "top_logprobs_num": [0, 0, 1],
        "token_ids_logprob": [None, None, [5]],
    }
    one, two, three = (result["meta_info"] for result in server.post(GENERATE, body).json)
    assert [entry[:2] for entry in one["input_token_logprobs"]] == [[None, 97], [-0.5, 98]]
    assert "input_token_logprobs" not in two
    assert three["input_token_logprobs"] == [[None, 102, None]]
    assert three["output_token_ids_logprobs"][0] == [[-5.0, 5, None]]


def test_a_stream_tells_the_prompt_in_every_event(server: Server) -> None:
    body = {"text": "abc", "return_logprob": True, "logprob_start_len": 0, "stream": True}
    for event in server.post(GENERATE, body).events:
        meta = event["meta_info"]
        assert len(meta["input_token_logprobs"]) == 3
        assert len(meta["output_token_logprobs"]) == meta["completion_tokens"]


def test_a_prompt_may_be_scored_without_an_answer(server: Server) -> None:
    body = {
        "text": "abc", "return_logprob": True, "logprob_start_len": 0,
        "sampling_params": {"max_new_tokens": 0},
    }  # fmt: skip
    result = server.post(GENERATE, body).json
    assert (result["text"], result["output_ids"]) == ("", [])
    assert len(result["meta_info"]["input_token_logprobs"]) == 3
    assert result["meta_info"]["finish_reason"] == {"type": "length", "length": 0}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("logprob_start_len", 3), ("logprob_start_len", -2), ("logprob_start_len", [0, 0]),
        ("top_logprobs_num", 21), ("token_ids_logprob", [999]), ("token_ids_logprob", "a"),
        ("return_logprob", [True, True]),
    ],
)  # fmt: skip
def test_log_probabilities_that_cannot_be_told_are_refused(
    server: Server, field: str, value: object
) -> None:
    body = {"text": "abc", "return_logprob": True, field: value}
    answer = server.post(GENERATE, body)
    assert (answer.status, answer.error["param"].split("[")[0]) == (400, field)


def test_an_answer_may_end_at_a_pattern(server: Server) -> None:
    body = {"text": "ab12cd", "sampling_params": {"stop_regex": "[0-9]{2}"}}
    result = server.post(GENERATE, body).json
    assert result["text"] == "ab"
    assert result["meta_info"]["finish_reason"] == {"type": "stop", "matched": "[0-9]{2}"}
    for wrong in ("(", "a*", "x" * 300, ["a"] * 33):
        body = {"text": "x", "sampling_params": {"stop_regex": wrong}}
        assert server.post(GENERATE, body).status == 400
