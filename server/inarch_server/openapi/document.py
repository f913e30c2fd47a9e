"""GET /openapi.json: the server's own description, made from the table of routes and its models."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from aiohttp import web
from pydantic.json_schema import models_json_schema

from inarch.version import __version__
from inarch_server.http.apis import api_of
from inarch_server.http.encoding import encode
from inarch_server.http.route import Route
from inarch_server.openapi.answers import ANSWERS, ref
from inarch_server.routes import ROUTES

REFS = "#/components/schemas/{model}"
ERRORS = {
    "400": "The request is wrong; the message says where and why",
    "401": "The API key is missing or wrong",
    "403": "Only who runs the server may do this",
    "404": "What the request names is not here",
    "408": "The body did not arrive in time",
    "413": "The body is too large",
    "500": "The answer failed",
    "503": "Overloaded, stopping, or without an engine",
    "504": "It took longer than it was given",
}


async def document(_: web.Request) -> web.Response:
    return web.Response(body=_encoded(), content_type="application/json")


@cache
def _encoded() -> bytes:
    return encode(make_document())


def make_document() -> dict[str, Any]:
    """OpenAPI 3.1."""
    bodies = [route.body for route in ROUTES if route.body is not None]
    _, schemas = models_json_schema([(body, "validation") for body in bodies], ref_template=REFS)
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        for method, path in route.ways:
            operation = _operation(route, method, path)
            paths.setdefault(_plain(path), {})[method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": "Inarch", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": {**schemas.get("$defs", {}), **ANSWERS},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    }


def _operation(route: Route, method: str, path: str) -> dict[str, Any]:
    api = api_of(path)
    operation: dict[str, Any] = {
        "summary": route.summary,
        "operationId": re.sub(r"\W+", "_", f"{method.lower()}{_plain(path)}").strip("_"),
        "responses": {
            "200": {"description": "Done", "content": _content(route)},
            **{
                status: {"description": why, "content": _json(ref(api.errors))}
                for status, why in ERRORS.items()
            },
        },
    }
    names = re.findall(r"{(\w+)", path)
    if names:
        operation["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in names
        ]
    if route.body is not None and method != "GET":
        content = _json(ref(route.body.__name__))
        operation["requestBody"] = {"required": route.body_needed, "content": content}
    return operation


def _content(route: Route) -> dict[str, Any]:
    if "/" in route.answer:
        return {route.answer: {"schema": {"type": "string"}}}
    content = _json(ref(route.answer))
    if route.streams:
        content[api_of(route.path).stream] = {}  # no schema of JSON can say what a stream is
    return content


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _plain(path: str) -> str:
    """Without the patterns of aiohttp: {id:.+} is {id}."""
    return re.sub(r":[^}]*}", "}", path)
