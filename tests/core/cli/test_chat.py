"""`inarch chat` remembers, forgets, stops and leaves as it says."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from inarch import Engine, EngineConfig
from inarch.cli.chat import CONTROL_PICTURES
from inarch.cli.local import EngineReplies

from .conftest import Run


class Server:
    """Speaks as much of OpenAI's API as a chat needs, in a thread of its own.

    Answers "You said: <the last message>" in four pieces. `refuse` is (status, message) or None;
    `after_piece` is called after each piece is sent: if it gives True, no more comes until the client
    has gone.
    """

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.refuse: tuple[int, str] | None = None
        self.raw_event: str | None = None
        self.after_piece: Callable[[], bool | None] = lambda: None
        self._ready, self._stop = threading.Event(), asyncio.Event()

    def __enter__(self) -> Server:
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._thread.start()
        assert self._ready.wait(20)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def _serve(self) -> None:
        app = web.Application()
        app.add_routes([web.get("/v1/models", self._models)])
        app.add_routes([web.post("/v1/chat/completions", self._chat)])
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        self._loop = asyncio.get_running_loop()
        self._ready.set()
        await self._stop.wait()
        await runner.cleanup()

    async def _models(self, request: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "parrot"}, {"id": "other"}]})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        self.bodies.append(await request.json())
        self.headers.append(dict(request.headers))
        if self.refuse is not None:
            status, message = self.refuse
            return web.json_response({"error": {"message": message}}, status=status)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        if self.raw_event is not None:
            await response.write(f"data: {self.raw_event}\n\n".encode())
        for piece in ["You ", "said: ", self.bodies[-1]["messages"][-1]["content"], "."]:
            event = {"choices": [{"delta": {"content": piece}}]}
            await response.write(f"data: {json.dumps(event)}\n\n".encode())
            if await asyncio.to_thread(self.after_piece):
                while request.transport is not None and not request.transport.is_closing():
                    await asyncio.sleep(0.01)
        await response.write(b"data: [DONE]\n\n")
        return response

    def conversations(self) -> list[list[str]]:
        """What was sent, one "role: content" a message."""
        return [[f"{m['role']}: {m['content']}" for m in b["messages"]] for b in self.bodies]


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


def test_answers_stream_and_the_conversation_is_remembered(run: Run, server: Server) -> None:
    ended = run("chat", "--url", server.url, "--system", "Be brief.", stdin="Hi\n\nBye\n")

    assert ended.code == 0
    assert "Talking to parrot." in ended.out
    assert "You said: Hi.\n" in ended.out
    assert server.conversations() == [
        ["system: Be brief.", "user: Hi"],
        ["system: Be brief.", "user: Hi", "assistant: You said: Hi.", "user: Bye"],
    ]


def test_reset_forgets_all_but_the_system_prompt(run: Run, server: Server) -> None:
    run("chat", "--url", server.url, "--system", "Be brief.", stdin="Hi\n/reset\nBye\n")

    assert server.conversations()[1] == ["system: Be brief.", "user: Bye"]


def test_exit_leaves(run: Run, server: Server) -> None:
    ended = run("chat", "--url", server.url, stdin="Hi\n/exit\nBye\n")

    assert ended.code == 0
    assert len(server.bodies) == 1


def test_an_unknown_command_is_not_sent(run: Run, server: Server) -> None:
    ended = run("chat", "--url", server.url, stdin="/quit\n/etc is a folder\n")

    assert "No such command. /reset forgets" in ended.out
    assert server.conversations() == [["user: /etc is a folder"]]


def test_only_what_was_given_is_sent(run: Run, server: Server) -> None:
    run("chat", "--url", server.url, stdin="Hi\n")
    run(
        *("chat", "other", "--url", server.url + "/v1/", "--api-key", "secret"),
        *("--temperature", "0", "--max-tokens", "9", "--seed", "4"),
        stdin="Hi\n",
    )
    plain, full = server.bodies

    assert set(plain) == {"model", "messages", "stream"}
    assert "Authorization" not in server.headers[0]
    assert (full["model"], full["temperature"], full["max_tokens"], full["seed"]) == (
        "other", 0, 9, 4,
    )  # fmt: skip
    assert server.headers[1]["Authorization"] == "Bearer secret"


@pytest.fixture
def heeds_ctrl_c() -> Iterator[None]:
    """As in a terminal: what runs in the background of a script ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeds_ctrl_c")
def test_ctrl_c_stops_the_answer_and_the_chat_goes_on(run: Run, server: Server) -> None:
    sent: list[None] = []

    def interrupt_after_two() -> bool:
        sent.append(None)
        if len(sent) != 2:
            return False
        while "said: " not in sys.stdout.getvalue():  # type: ignore[attr-defined]
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)
        return True

    server.after_piece = interrupt_after_two
    ended = run("chat", "--url", server.url, stdin="Hi\nBye\n")

    assert ended.code == 0
    assert "You said:  (stopped)\nYou said: Bye." in ended.out
    assert server.conversations()[1] == ["user: Hi", "assistant: You said: ", "user: Bye"]


def test_a_refused_message_is_taken_back(run: Run, server: Server) -> None:
    server.refuse = (400, "the prompt has 999 tokens")
    ended = run("chat", "--url", server.url, stdin="Hi\nBye\n")

    assert ended.code == 0
    assert "the prompt has 999 tokens" in ended.out
    assert server.conversations() == [["user: Hi"], ["user: Bye"]]


@pytest.mark.parametrize(
    ("status", "shown"), [(401, "HTTP 401: wrong key"), (503, "HTTP 503: wrong key")]
)
def test_an_error_that_is_not_about_the_messages_ends_the_chat(
    run: Run, server: Server, status: int, shown: str
) -> None:
    server.refuse = (status, "wrong key")
    ended = run("chat", "--url", server.url, stdin="Hi\nBye\n")

    assert ended.code == 1
    assert shown in ended.err
    assert len(server.bodies) == 1


@pytest.mark.parametrize(
    ("event", "shown"),
    [('{"error": {"message": "engine gone"}}', "engine gone"), ("{", "cannot be read")],
)
def test_an_error_in_the_stream_is_told(run: Run, server: Server, event: str, shown: str) -> None:
    server.raw_event = event
    ended = run("chat", "--url", server.url, stdin="Hi\n")

    assert ended.code == 1
    assert shown in ended.err


def test_a_server_that_is_not_there_is_told(run: Run) -> None:
    ended = run("chat", "--url", "127.0.0.1:9")

    assert ended.code == 1
    assert "error: cannot reach http://127.0.0.1:9/v1/models (Connection refused)" in ended.err


def test_control_characters_of_an_answer_do_not_reach_the_terminal(
    run: Run, server: Server
) -> None:
    ended = run("chat", "--url", server.url, stdin="\x1b[2Jx\ty\n")

    assert "You said: ␛[2Jx\ty." in ended.out
    assert "\x1b" not in ended.out


def test_a_model_in_this_process_answers_as_its_engine_does(run: Run, model: Path) -> None:
    given = {"temperature": 0.0, "max_tokens": 12}
    with Engine(EngineConfig(model=str(model), load_format="dummy")) as engine:
        said = "".join(EngineReplies(engine, given).reply([{"role": "user", "content": "Hi"}]))
    options = ["--load-format", "dummy", "--temperature", "0", "--max-tokens", "12"]
    ended = run("chat", str(model), *options, stdin="Hi\n")

    assert ended.code == 0
    assert said.translate(CONTROL_PICTURES) in ended.out


def test_a_model_that_generates_no_text_is_refused_before_the_talk(
    run: Run, model: Path, tmp_path: Path
) -> None:
    classifier = shutil.copytree(model, tmp_path / "classifier")
    config = json.loads((model / "config.json").read_text())
    config["architectures"] = ["LlamaForSequenceClassification"]
    (classifier / "config.json").write_text(json.dumps(config))
    ended = run("chat", str(classifier), "--load-format", "dummy", stdin="Hi\n")

    assert ended.code == 1
    assert "generates no text: it gives scores of labels, by /v1/classify" in ended.err
    assert "Talking to" not in ended.out


@pytest.mark.usefixtures("heeds_ctrl_c")
def test_ctrl_c_ends_a_request_of_the_engine_and_harms_no_other(model: Path) -> None:
    question = [{"role": "user", "content": "Hi"}]
    with Engine(EngineConfig(model=str(model), load_format="dummy")) as engine:
        replies = EngineReplies(engine, {"temperature": 0.0, "max_tokens": 12})
        whole = "".join(replies.reply(question))
        reply = replies.reply(question)
        next(reply)
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            list(reply)

        assert engine.stats().running == 0
        assert "".join(replies.reply(question)) == whole


def test_a_model_without_a_chat_template_is_refused(run: Run, model: Path, tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((model / name).read_bytes())
    ended = run("chat", str(tmp_path), "--load-format", "dummy", stdin="Hi\n")

    assert ended.code == 1
    assert "--chat-template FILE" in ended.err
    assert "inarch generate" in ended.err
