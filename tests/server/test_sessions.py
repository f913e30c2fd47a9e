"""Sessions: what the engine is asked is what it would be asked if all were sent again."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inarch.errors import InvalidRequestError
from inarch_server.native import sessions
from inarch_server.native.protocol import OpenSession, SessionParams
from inarch_server.native.sessions import MAX_TURNS, Sessions

from .harness import Server, eventually
from .standin import EOS


def opened(server: Server, **options: Any) -> str:
    answer = server.post("/open_session", options)
    assert answer.status == 200, answer.body
    return answer.json


def turn(server: Server, session: str, text: str, own: str, **where: Any) -> Any:
    body = {"text": text, "rid": own, "session_params": {"id": session, **where}}
    answer = server.post("/generate", body)
    assert answer.status == 200, answer.body
    return answer.json


def asked(server: Server) -> str:
    ids, _ = server.engine.asked[-1]
    return bytes(i for i in ids if i != EOS).decode()


def test_requests_append_and_branch(server: Server) -> None:
    name = opened(server, session_id="s")
    assert name == "s"
    turn(server, name, "one", "a")  # the stand-in says the prompt again, up to where that ends
    turn(server, name, "two", "b", rid="a")
    assert asked(server) == "oneonetwo"
    turn(server, name, "three", "c", rid="a")
    assert asked(server) == "oneonethree"
    turn(server, name, "four", "d", rid="b")
    assert asked(server) == "oneonetwo" + "oneone" + "four"
    turn(server, name, "new", "e")
    assert asked(server) == "new"


def test_an_offset_cuts_and_the_answer_may_be_left_out(server: Server) -> None:
    name = opened(server)
    turn(server, name, "abc", "a")
    turn(server, name, "X", "b", rid="a", offset=2)
    assert asked(server) == "abX"
    turn(server, name, "X", "c", rid="a", offset=-2)  # the end of the answer and its last letter
    assert asked(server) == "abcabX"
    turn(server, name, "X", "d", rid="a", drop_previous_output=True)
    assert asked(server) == "abcX"
    assert turn(server, name, "X", "e", rid="a", offset=2)["meta_info"]["prompt_tokens"] == 3


def test_replacing_forgets_what_came_after(server: Server) -> None:
    name = opened(server)
    turn(server, name, "one", "a")
    turn(server, name, "two", "b", rid="a")
    turn(server, name, "three", "c", rid="a", replace=True)
    gone = {"text": "x", "session_params": {"id": name, "rid": "b"}}
    answer = server.post("/generate", gone)
    assert (answer.status, answer.error["param"]) == (400, "session_params.rid")
    turn(server, name, "four", "d", rid="c")
    turn(server, name, "all new", "a", replace=True)
    assert asked(server) == "all new"


def test_a_session_that_only_appends_needs_no_rid(server: Server) -> None:
    name = opened(server, streaming=True)
    for text, expected in (("a", "a"), ("b", "aab"), ("c", "aabaac")):
        turn(server, name, text, text)
        assert asked(server) == expected


def test_streams_are_remembered_like_whole_answers(server: Server) -> None:
    name = opened(server)
    body = {"text": "one", "rid": "a", "stream": True, "session_params": {"id": name}}
    assert server.post("/generate", body).events[-1]["text"] == "one"
    turn(server, name, "two", "b", rid="a")
    assert asked(server) == "oneonetwo"


def test_a_request_that_still_runs_cannot_be_continued(server: Server) -> None:
    name = opened(server)
    server.engine.endless, server.engine.delay_s = True, 0.05
    connection = server.open("/generate", {
        "text": "one", "rid": "a", "stream": True, "sampling_params": {"max_new_tokens": 1000},
        "session_params": {"id": name},
    })  # fmt: skip
    eventually(lambda: server.engine.running == 1)
    more = {"text": "x", "rid": "b", "session_params": {"id": name, "rid": "a"}}
    answer = server.post("/generate", more)
    assert (answer.status, "not finished" in answer.error["message"]) == (400, True)
    connection.close()  # what it said until then is what it said
    eventually(lambda: server.engine.running == 0)
    server.engine.endless = False
    eventually(lambda: server.post("/generate", more).status == 200)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"session_params": {"id": "nobody"}}, 404),
        ({"session_params": {"id": "s", "rid": "nobody"}}, 400),
        ({"session_params": {"id": "s"}, "text": ["a", "b"]}, 400),
        ({"session_params": {"id": "s"}, "sampling_params": {"n": 2}}, 400),
        ({"session_params": {}}, 400),
    ],
)
def test_what_no_session_can_do_is_refused(
    server: Server, body: dict[str, Any], status: int
) -> None:
    opened(server, session_id="s")
    answer = server.post("/generate", {"text": "x", **body})
    assert answer.status == status
    assert server.engine.asked == []


def test_closed_and_forgotten_sessions_are_gone(server: Server) -> None:
    name = opened(server, session_id="s")
    assert server.post("/open_session", {"session_id": "s"}).status == 400
    assert server.post("/close_session", {"session_id": "s"}).status == 200
    assert server.post("/close_session", {"session_id": "s"}).status == 404
    name = opened(server, timeout=0.05)
    time.sleep(0.2)  # to ask for it any sooner would be to use it
    answer = server.post("/generate", {"text": "x", "session_params": {"id": name}})
    assert answer.status == 404


def test_a_session_that_was_opened_without_a_timeout_does_not_stay_for_ever(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "IDLE_S", 0.05)
    name = opened(server)
    time.sleep(0.2)
    answer = server.post("/generate", {"text": "x", "session_params": {"id": name}})
    assert (answer.status, "opened without one" in answer.error["message"]) == (404, True)


def test_a_session_holds_no_more_than_its_capacity(server: Server) -> None:
    name = opened(server, capacity_of_str_len=10)
    turn(server, name, "abcd", "a")  # and as many again, and the end
    body = {"text": "xy", "rid": "b", "session_params": {"id": name, "rid": "a"}}
    answer = server.post("/generate", body)
    assert (answer.status, "capacity of 10" in answer.error["message"]) == (400, True)
    turn(server, name, "xy", "b", rid="a", offset=4)


def test_with_several_front_ends_there_are_none() -> None:
    from .standin import StandIn

    with Server(StandIn(), api_workers=2) as several:
        answer = several.post("/open_session", {})
        assert (answer.status, "--api-workers 1" in answer.error["message"]) == (400, True)


TOKENS = st.lists(st.integers(0, 9), max_size=4)
STEPS = st.lists(
    st.tuples(TOKENS, TOKENS, st.integers(0, 8), st.none() | st.integers(-9, 9), st.booleans()),
    max_size=12,
)


@given(STEPS)
def test_a_turn_asks_what_sending_everything_again_would_ask(steps: list[Any]) -> None:
    """Against whole prompts, kept as lists; parents, offsets and answers are arbitrary."""

    async def program() -> None:
        sessions, lines = Sessions(), dict[str, tuple[list[int], list[int]]]()
        name = sessions.open(OpenSession())
        for number, (ids, output, parent, offset, drop) in enumerate(steps):
            before = f"t{parent}" if f"t{parent}" in lines else None
            where = SessionParams(
                id=name, rid=before, offset=offset, drop_previous_output=drop, replace=None
            )
            base: list[int] = []
            if before is not None:
                base = lines[before][0] + ([] if drop else lines[before][1])
                base = base[:offset] if offset else base
            with sessions.turn(where, f"t{number}", ids) as made:
                assert made.prompt == base + ids
                made.hear(output)
            lines[f"t{number}"] = (base + ids, output)

    asyncio.run(program())


def test_a_session_has_a_limited_number_of_requests() -> None:
    async def program() -> None:
        sessions = Sessions()
        name = sessions.open(OpenSession())
        for number in range(MAX_TURNS):
            sessions.turn(SessionParams(id=name), str(number), [1])
        with pytest.raises(InvalidRequestError, match="requests"):
            sessions.turn(SessionParams(id=name), "one more", [1])
        sessions.turn(SessionParams(id=name, replace=True), "one more", [1])

    asyncio.run(program())
