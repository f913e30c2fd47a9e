"""Which routes want which key, and from where they answer without one."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

import pytest
from aiohttp.test_utils import make_mocked_request

from inarch_server.http.access import ADMIN, is_local

from .harness import Answer, Server
from .standin import StandIn

API, OPERATOR = "users", "operator"
USER_ROUTES = [
    "/generate",
    "/server_info",
    "/model_info",
    "/v1/loads",
    "/open_session",
    "/v1/models",
]


def bearer(key: str | None) -> dict[str, str]:
    return {} if key is None else {"Authorization": f"Bearer {key}"}


def ask(server: Server, path: str, **headers: str) -> Answer:
    """A request that is right but for who sends it."""
    bodies: dict[str, Any] = {"/generate": b'{"text": "x"}', "/open_session": b"{}"}
    if path in bodies:
        return server.request("POST", path, bodies[path], headers)
    if path in ("/pause_generation", "/continue_generation"):
        return server.request("POST", path, None, headers)
    return server.request("GET", path, None, headers)


def test_the_admin_routes_are_those_that_concern_all_users() -> None:
    assert {"/flush_cache", "/pause_generation", "/start_profile"} <= ADMIN
    assert not ADMIN & set(USER_ROUTES)


@pytest.mark.parametrize(
    ("keys", "sent", "users", "admins"),
    [
        ({}, None, 200, 200),
        ({"api_key": API}, None, 401, 401),
        ({"api_key": API}, "wrong", 401, 401),
        ({"api_key": API}, API, 200, 200),
        ({"admin_api_key": OPERATOR}, None, 200, 401),
        ({"admin_api_key": OPERATOR}, "wrong", 200, 401),
        ({"admin_api_key": OPERATOR}, OPERATOR, 200, 200),
        ({"api_key": API, "admin_api_key": OPERATOR}, None, 401, 401),
        ({"api_key": API, "admin_api_key": OPERATOR}, API, 200, 401),
        ({"api_key": API, "admin_api_key": OPERATOR}, OPERATOR, 200, 200),
    ],
)
def test_keys(keys: dict[str, str], sent: str | None, users: int, admins: int) -> None:
    with Server(StandIn(), **keys) as server:
        for path in USER_ROUTES:
            assert ask(server, path, **bearer(sent)).status == users, path
        for path in ADMIN:
            assert ask(server, path, **bearer(sent)).status == admins, path
        done = bool(server.engine.orders)
    assert done == (admins == 200)


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-For": "127.0.0.1"},
        {"Forwarded": "for=127.0.0.1"},
        {"X-Real-IP": "127.0.0.1"},
        {"Via": "1.1 proxy"},
        {"Host": "evil.example"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
    ids=str,
)
def test_who_is_not_surely_on_this_machine_needs_the_admin_key(headers: dict[str, str]) -> None:
    for keys, sent in (({}, None), ({"api_key": API}, API)):
        with Server(StandIn(), **keys) as server:
            for path in ADMIN:
                answer = ask(server, path, **headers, **bearer(sent))
                assert (answer.status, answer.error["code"]) == (403, "admin_only")
            assert ask(server, "/v1/models", **headers, **bearer(sent)).status == 200
            assert server.engine.orders == []
    with Server(StandIn(), admin_api_key=OPERATOR) as server:
        for path in ADMIN:
            assert ask(server, path, **headers, **bearer(OPERATOR)).status == 200


@pytest.mark.parametrize("host", ["localhost:1", "127.0.0.1", "[::1]:30000"])
def test_a_page_of_this_machine_is_local(server: Server, host: str) -> None:
    headers = {"Host": host, "Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}
    assert ask(server, "/flush_cache", **headers).status == 200


@pytest.mark.parametrize(
    ("peer", "local"),
    [
        (("127.0.0.1", 5), True),
        (("127.8.9.1", 5), True),
        (("::1", 5, 0, 0), True),
        (("::ffff:127.0.0.1", 5, 0, 0), True),
        (("10.0.0.1", 5), False),
        (("::ffff:10.0.0.1", 5, 0, 0), False),
        (("fe80::1%eth0", 5, 0, 2), False),
        ("", False),
        (None, False),
    ],
    ids=str,
)
def test_the_address_of_the_connection_decides(peer: Any, local: bool) -> None:
    transport = Mock()
    transport.get_extra_info = lambda name, default=None: peer if name == "peername" else default
    request = make_mocked_request("GET", "/", headers={"Host": "localhost"}, transport=transport)
    assert is_local(request) == local


def test_one_request_may_be_ended_by_a_user_but_not_all() -> None:
    with Server(StandIn(), api_key=API, admin_api_key=OPERATOR) as server:
        ended = server.post("/abort_request", {"rid": "mine"}, **bearer(API))
        every = {"abort_all": True}
        assert ended.status == 200
        assert server.post("/abort_request", every, **bearer(API)).status == 401
        assert server.post("/abort_request", every, **bearer(OPERATOR)).status == 200
        assert server.engine.orders == [("abort", "mine"), ("abort", None)]


def test_no_route_tells_a_key() -> None:
    with Server(StandIn(), api_key="s3cret-a", admin_api_key="s3cret-b") as server:
        told = server.get("/server_info", Authorization="Bearer s3cret-a")
    assert told.status == 200
    assert b"s3cret" not in told.body
