"""How the page is served; what it does is tested in a browser, in tests/e2e."""

from __future__ import annotations

import re
from pathlib import Path

import inarch_server

from .harness import Server

STATIC = Path(inarch_server.__file__).parent / "static"
FILES = sorted(path.name for path in STATIC.iterdir())


def test_the_page_and_its_files_bring_everything_along(server: Server) -> None:
    page = server.get("/")
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    text = page.body.decode()
    for name in FILES:
        answer = server.get(f"/static/{name}")
        assert answer.status == 200
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.body == (STATIC / name).read_bytes()
        text += answer.body.decode()
    assert "/v1/chat/completions" in text
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)


def test_the_page_has_neither_styles_nor_scripts_that_its_policy_forbids() -> None:
    text = (STATIC / "index.html").read_text()
    assert not re.search(r"<style|\bstyle=|\bon\w+=|<script(?![^>]*\bsrc=)", text)
    for path in STATIC.glob("*.js"):
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|\beval\(|document\.write",
                             path.read_text()), path.name  # fmt: skip


def test_a_file_that_has_not_changed_is_not_sent_again(server: Server) -> None:
    for path in ("/", "/static/app.js"):
        first = server.get(path)
        again = server.get(path, **{"If-None-Match": first.headers["Etag"]})
        assert (again.status, again.body) == (304, b"")
        assert again.headers["Etag"] == first.headers["Etag"]
        assert first.headers["Cache-Control"] == "no-cache"
        assert server.get(path, **{"If-None-Match": '"other"'}).body == first.body


def test_nothing_but_the_page_s_files_is_served(server: Server) -> None:
    for name in ("nothing.js", "..%2fapp.py", "%2e%2e%2fapp.py", "__init__.py", ""):
        assert server.get(f"/static/{name}").status == 404
