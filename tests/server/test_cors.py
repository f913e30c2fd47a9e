"""Web pages of other origins: shut out unless the operator lets them in."""

from __future__ import annotations

import pytest

from .harness import Server, messages
from .standin import StandIn

CHAT = "/v1/chat/completions"
PAGE, OTHER = "https://page.example", "https://other.example"
ALLOW = "Access-Control-Allow-Origin"


def preflight(server: Server, origin: str) -> tuple[int, dict[str, str]]:
    answer = server.request(
        "OPTIONS",
        CHAT,
        headers={
            "Origin": origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization, content-type",
        },
    )
    return answer.status, answer.headers


def test_no_page_may_use_the_server_by_default(server: Server) -> None:
    status, headers = preflight(server, PAGE)
    assert (status, headers.get(ALLOW)) == (405, None)
    answer = server.post(CHAT, {"messages": messages("Hi")}, Origin=PAGE)
    assert ALLOW not in answer.headers


def test_a_page_that_was_named_may_and_no_other() -> None:
    with Server(StandIn(), cors_origins=f"https://x.example, {PAGE}", api_key="k") as server:
        status, headers = preflight(server, PAGE)
        assert (status, headers[ALLOW]) == (204, PAGE)
        assert "POST" in headers["Access-Control-Allow-Methods"]
        assert headers["Access-Control-Allow-Headers"] == "authorization, content-type"
        body = {"messages": messages("Hi"), "stream": True}
        answer = server.post(CHAT, body, Origin=PAGE, Authorization="Bearer k")
        assert (answer.status, answer.headers[ALLOW], answer.headers["Vary"]) == (
            200,
            PAGE,
            "Origin",
        )
        # It must be able to read refusals too.
        refused = server.post(CHAT, body, Origin=PAGE)
        assert (refused.status, refused.headers[ALLOW]) == (401, PAGE)
        status, headers = preflight(server, OTHER)
        assert status == 401
        assert ALLOW not in headers


@pytest.mark.parametrize("origin", [PAGE, OTHER])
def test_any_page_may_if_the_operator_says_so(origin: str) -> None:
    with Server(StandIn(), cors_origins="*") as server:
        assert preflight(server, origin)[0] == 204
        assert server.get("/v1/models", Origin=origin).headers[ALLOW] == "*"
