"""/openapi.json describes the routes that there are, in a form that tools can read."""

from __future__ import annotations

import json
import re
from typing import Any

from inarch_server.openapi.answers import ANSWERS
from inarch_server.routes import ROUTES

from .harness import Server, messages


def refs(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*map(refs, value.values()))
    return set().union(*map(refs, value)) if isinstance(value, list) else set()


def test_every_route_is_described_with_what_it_takes_and_gives(server: Server) -> None:
    document = server.get("/openapi.json").json
    assert document["openapi"].startswith("3.1")
    described = {
        (method.upper(), path)
        for path, operations in document["paths"].items()
        for method in operations
    }
    served = {
        (route.method, route.resource.canonical)
        for route in server.app.router.routes()
        if route.method not in ("HEAD", "OPTIONS") and route.resource is not None
    }
    assert described == served - {("GET", "/openapi.json")}
    for operations in document["paths"].values():
        for method, operation in operations.items():
            assert "200" in operation["responses"]
            assert ("requestBody" in operation) <= (method in ("post", "put"))


def test_no_reference_leads_nowhere(server: Server) -> None:
    document = server.get("/openapi.json").json
    known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert refs(document) <= known
    assert "#/components/schemas/ChatRequest" in refs(document)


def test_operations_have_different_names(server: Server) -> None:
    paths = server.get("/openapi.json").json["paths"]
    names = [o["operationId"] for operations in paths.values() for o in operations.values()]
    assert len(set(names)) == len(names)


def test_what_requests_and_answers_are_called_does_not_clash(server: Server) -> None:
    document = server.get("/openapi.json").json
    requests = {route.body.__name__ for route in ROUTES if route.body is not None}
    assert not requests & set(ANSWERS)
    assert document["components"]["schemas"]["Model"] == ANSWERS["Model"]


def test_fields_that_are_refused_are_described_as_null(server: Server) -> None:
    fields = server.get("/openapi.json").json["components"]["schemas"]["ChatRequest"]["properties"]
    assert fields["functions"]["type"] == "null"
    assert {"type": "string"} in fields["stop"]["anyOf"]


def test_the_document_itself_is_json_of_bounded_size(server: Server) -> None:
    answer = server.get("/openapi.json")
    assert answer.headers["Content-Type"].startswith("application/json")
    assert len(answer.body) < 300_000
    assert not re.search(r"inarch_server__", json.dumps(sorted(answer.json["paths"])))


def test_the_paths_that_clients_know_are_there(server: Server) -> None:
    body = {"messages": messages("Hi")}
    assert server.post("/v1/chat/completions", body).status == 200
    assert "/v1/responses/{id}" in server.get("/openapi.json").json["paths"]
