"""What the live view asks for: numbers of the moment, open requests, errors, kernels, the tree."""

from __future__ import annotations

import threading

import pytest

from .harness import Server, eventually


def test_live_shows_numbers_and_the_requests_that_are_open(server: Server) -> None:
    server.engine.delay_s, server.engine.endless = 0.01, True
    body = {"prompt": "four", "max_tokens": 100000, "ignore_eos": True}
    asking = threading.Thread(
        target=lambda: server.post("/v1/completions", body, **{"X-Request-Id": "mine"})
    )
    asking.start()
    eventually(lambda: bool(server.get("/live").json["requests"]))
    eventually(lambda: server.get("/live").json["requests"][0]["completion_tokens"] > 3)
    found = server.get("/live").json
    (request,) = found["requests"]
    assert (request["id"], request["route"]) == ("mine", "/v1/completions")
    assert (request["prompt_tokens"], request["waiting"], request["choices"]) == (4, False, 1)
    assert found["engine"]["running"] == 1
    assert found["alive"] is True
    server.engine.endless, server.engine.delay_s = False, 0.0
    asking.join()
    eventually(lambda: server.get("/live").json["requests"] == [])


def test_live_answers_without_an_engine(server: Server) -> None:
    server.engine.alive = False
    found = server.get("/live").json
    assert (found["alive"], found["engine"]) == (False, None)
    assert server.get("/cache_tree").status == 503


def test_errors_are_kept_newest_first_and_the_same_one_once(server: Server) -> None:
    server.post("/generate", {"text": 7})
    server.engine.fail_after = 1
    for _ in range(3):
        server.post("/v1/completions", {"prompt": "x", "stream": True})
    server.get("/nowhere")
    errors = server.get("/live").json["errors"]
    assert [(e["route"], e["status"], e["times"]) for e in errors] == [
        ("unknown", 404, 1),
        ("/v1/completions", 200, 3),
        ("/generate", 400, 1),
    ]
    assert errors[1]["message"] == "the device is on fire"


def test_kernels_say_which_and_why(server: Server) -> None:
    found = server.get("/kernels").json
    row = {"op": "rms_norm", "kernel": "reference", "bindings": 9, "why": "no kernel applies"}
    assert found["ops"] == [row]
    assert found["backend"] == "none"


def test_the_tree_comes_as_text_but_not_that_of_a_named_namespace(server: Server) -> None:
    found = server.get("/cache_tree").json
    assert found["tokens"] == 112
    parent, child, private = found["nodes"]
    assert (parent["text"], parent["parent"], parent["running"]) == ("<b>Hello</b>", 0, 1)
    assert (child["parent"], child["hidden"], child["text"]) == (parent["id"], 3, "<b>He")
    assert private["text"] is None
    assert len(server.get("/cache_tree?nodes=1").json["nodes"]) == 1


@pytest.mark.parametrize("nodes", ["0", "501", "-1", "many", "²", "1" * 5000])
def test_nobody_gets_more_of_the_tree_than_is_cheap(server: Server, nodes: str) -> None:
    from urllib.parse import quote

    answer = server.get(f"/cache_tree?nodes={quote(nodes)}")
    assert answer.status == 400
    assert answer.error["param"] == "nodes"
