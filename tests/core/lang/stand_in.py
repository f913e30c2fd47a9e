"""A server that speaks OpenAI's and Anthropic's APIs, writes what a test tells it to, and keeps what
it was asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Body = dict[str, Any]
Answer = tuple[str, str]  # text, and why it ends


class StandIn:
    """answer: makes the text, or the text and its finish reason, from a request's body."""

    def __init__(self, answer: Callable[[Body], str | Answer]) -> None:
        self.bodies: list[Body] = []
        self.connections = 0
        self.paths: list[str] = []
        self.headers: list[Mapping[str, str]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"  # connections are kept

            def setup(self) -> None:
                super().setup()
                outer.connections += 1

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.bodies.append(body)
                outer.paths.append(self.path)
                outer.headers.append(dict(self.headers))
                found = answer(body)
                text, reason = found if isinstance(found, tuple) else (found, "stop")
                events = _events(self.path, text, reason)
                data = b"".join(f"data: {json.dumps(event)}\n\n".encode() for event in events)
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> StandIn:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def _events(path: str, text: str, reason: str) -> Iterator[Body]:
    half = len(text) // 2
    if "/messages" in path:
        yield {"type": "message_start", "message": {"usage": {"input_tokens": 7}}}
        for part in (text[:half], text[half:]):
            yield {"type": "content_block_delta", "delta": {"type": "text_delta", "text": part}}
        yield {"delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}}
        return
    for part in (text[:half], text[half:]):
        told = {"delta": {"content": part}} if "chat" in path else {"text": part}
        yield {"choices": [{"index": 0, **told}]}
    yield {"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}
    yield {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}
