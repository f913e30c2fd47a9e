"""The page at / and the files it is made of, served from memory: it works without any other host."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from aiohttp import web

TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}
HEADERS = {
    # The page brings everything along and talks to nobody but this server.
    "Content-Security-Policy": (
        "default-src 'none'; connect-src 'self'; style-src 'self'; script-src 'self';"
        " img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # kept, but asked for again: most often the answer is 304
}


@dataclass(frozen=True)
class File:
    body: bytes
    content_type: str
    etag: str


@cache
def _files() -> dict[str, File]:
    found = {}
    for entry in files("inarch_server").joinpath("static").iterdir():
        suffix = entry.name[entry.name.rfind(".") :]
        if suffix in TYPES:
            body = entry.read_bytes()
            etag = hashlib.sha256(body).hexdigest()[:16]
            found[entry.name] = File(body, TYPES[suffix], etag)
    return found


async def page(request: web.Request) -> web.Response:
    return _answer(request, _files()["index.html"])


async def static(request: web.Request) -> web.Response:
    file = _files().get(request.match_info["name"])
    if file is None:
        raise web.HTTPNotFound
    return _answer(request, file)


def _answer(request: web.Request, file: File) -> web.Response:
    response = web.Response(headers=HEADERS)
    response.etag = file.etag
    if any(tag.value in (file.etag, "*") for tag in request.if_none_match or ()):
        response.set_status(304)
        return response
    response.content_type, response.charset = file.content_type, "utf-8"
    response.body = file.body
    return response
