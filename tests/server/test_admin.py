"""Orders by HTTP, and what is told of the server to those who ask in SGLang's words."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from inarch_server.native.admin import PROFILES

from .harness import Server
from .standin import StandIn


def test_flush_pause_and_continue_reach_the_engine(server: Server) -> None:
    assert server.get("/flush_cache").json == {"success": True, "pages": 3}
    assert server.post("/flush_cache", b"").status == 200
    assert server.post("/pause_generation", b"").json["mode"] == "abort"
    assert server.post("/pause_generation", {"mode": "in_place"}).status == 200
    assert server.post("/continue_generation", b"").status == 200
    assert server.engine.orders[1:] == [
        ("clear_cache",), ("pause", "abort"), ("pause", "in_place"), ("proceed",),
    ]  # fmt: skip


@pytest.mark.parametrize("body", [{"mode": "later"}, {"mode": 1}, [1]])
def test_a_pause_of_an_unknown_kind_is_refused(server: Server, body: Any) -> None:
    assert server.post("/pause_generation", body).status == 400
    assert server.engine.orders == []


@pytest.mark.parametrize("body", [{}, {"rid": "a", "abort_all": True}, {"rid": ""}, {"rid": 3}])
def test_an_abort_names_a_request_or_all(server: Server, body: Any) -> None:
    assert server.post("/abort_request", body).status == 400
    assert server.engine.orders == []


def test_traces_go_to_the_folder_of_the_operator_and_nowhere_else(tmp_path: Path) -> None:
    root = tmp_path / "profiles"
    with Server(StandIn(), profile_dir=str(root)) as server:
        plain = server.post("/start_profile", b"").json["path"]
        named = {"output_dir": "run/1", "num_steps": 5, "profile_name": "mine"}
        inside = server.post("/start_profile", named).json["path"]
        (root / "link").symlink_to(tmp_path)
        for outside in ("..", "/etc", str(tmp_path), "a/../../b", "link"):
            answer = server.post("/start_profile", {"output_dir": outside})
            assert (answer.status, answer.error["param"]) == (400, "output_dir")
        assert server.post("/start_profile", {"profile_name": "../x"}).status == 400
        assert server.post("/start_profile", {"output_dir": "a\0b"}).status == 400
        assert server.engine.orders == [
            ("start_profile", plain, None), ("start_profile", inside, 5),
        ]  # fmt: skip
    assert Path(plain).parent == root
    assert Path(inside).parent == root / "run" / "1"
    assert Path(inside).name.startswith("mine-")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["profiles"]


def test_without_a_folder_traces_go_to_one_of_this_user_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with Server(StandIn()) as server:
        path = Path(server.get("/start_profile").json["path"])
        assert server.get("/stop_profile").status == 200
    assert path.is_relative_to(tmp_path)
    assert path.parent.stat().st_mode & 0o077 == 0


def test_a_link_in_the_place_of_the_folder_of_traces_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "precious").mkdir()
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp" / f"{PROFILES}-{os.getuid()}").symlink_to(tmp_path / "precious")
    with Server(StandIn()) as server:
        assert server.post("/start_profile", b"").status == 400
        assert server.engine.orders == []
    assert list((tmp_path / "precious").iterdir()) == []


def test_a_folder_of_traces_that_another_user_has_made_is_not_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """He may have let everybody write to it, and read it."""
    user = os.getuid() + 1
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / f"{PROFILES}-{user}").mkdir()
    monkeypatch.setattr("os.getuid", lambda: user)
    with Server(StandIn()) as server:
        answer = server.post("/start_profile", b"")
        assert (answer.status, "somebody else" in answer.error["message"]) == (400, True)
        assert server.engine.orders == []


def test_what_is_told_of_the_model_and_the_server(server: Server) -> None:
    model = server.get("/model_info").json
    assert (model["model_path"], model["is_generation"]) == ("/nowhere", True)
    assert server.get("/get_model_info").json == model
    told = server.get("/server_info").json
    assert (told["port"], told["context_length"], told["max_running_requests"]) == (30000, 2048, 64)
    (load,) = told["internal_states"]
    assert load["num_used_tokens"] == 3 * 16
    assert server.get("/get_server_info").json == told
    assert server.get("/v1/loads").json["loads"] == [load]


def test_a_paused_engine_is_healthy(server: Server) -> None:
    server.engine.paused = True
    server.engine.delay_s = 60.0
    assert server.get("/health_generate").status == 200
    assert server.engine.asked == []


def test_a_full_queue_says_when_to_come_back(server: Server) -> None:
    from inarch.errors import InvalidRequestError

    server.engine.crash = InvalidRequestError("too many", status=503, code="overloaded")
    answer = server.post("/generate", {"text": "x"})
    assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
    server.engine.crash = InvalidRequestError("wrong")
    assert "Retry-After" not in server.post("/generate", {"text": "x"}).headers


GENERATE, COMPLETIONS, CHAT = "/generate", "/v1/completions", "/v1/chat/completions"
ASK: dict[str, dict[str, Any]] = {
    GENERATE: {"text": "x" * 30},
    COMPLETIONS: {"prompt": "x" * 30, "max_tokens": 200},
    CHAT: {"messages": [{"role": "user", "content": "x" * 30}]},
}


@pytest.mark.parametrize("path", ASK)
def test_how_a_request_is_to_be_served_reaches_the_engine(server: Server, path: str) -> None:
    said = {"priority": -3, "cache_salt": "s", "extra_key": "k", "timeout": 9}
    assert server.post(path, ASK[path] | said).status == 200
    assert server.post(path, ASK[path] | {"cache_salt": "sk"}).status == 200
    assert server.post(path, ASK[path]).status == 200
    first, second, plain = server.engine.terms
    assert (first.priority, first.timeout_s) == (-3, 9)
    assert len({first.namespace, second.namespace, plain.namespace}) == 3
    assert (plain.priority, plain.namespace, plain.timeout_s) == (0, "", None)


@pytest.mark.parametrize("path", ASK)
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("priority", "high"), ("priority", 2**31), ("timeout", 0), ("timeout", -1),
        ("timeout", "soon"), ("cache_salt", 7), ("cache_salt", "x" * 600), ("extra_key", ["a"]),
    ],
)  # fmt: skip
def test_terms_that_cannot_be_are_refused(
    server: Server, path: str, field: str, value: Any
) -> None:
    answer = server.post(path, ASK[path] | {field: value})
    assert (answer.status, answer.error["param"]) == (400, field)


@pytest.mark.parametrize("path", ASK)
def test_a_request_that_takes_too_long_is_ended(path: str) -> None:
    """Before its first token with a status of its own, afterwards with an event."""
    with Server(StandIn(), request_timeout=0.5) as server:
        server.engine.endless, server.engine.delay_s = True, 5.0
        late = server.post(path, ASK[path] | {"timeout": 60})  # cannot outlast the server's limit
        assert (late.status, late.error["code"]) == (504, "timeout")
        server.engine.delay_s = 0.01
        cut = server.post(path, ASK[path] | {"stream": True})
        assert cut.status == 200
        assert len(cut.events) > 2
        assert cut.events[-1]["error"]["code"] == "timeout"
        eventually_idle(server)
        quick = server.post(
            path, ASK[path] | {"max_tokens": 1, "sampling_params": {"max_new_tokens": 1}}
        )
        assert quick.status == 200


def eventually_idle(server: Server) -> None:
    from .harness import eventually

    eventually(lambda: server.engine.running == 0)
