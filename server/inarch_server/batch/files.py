"""The two files of a batch: requests in, answers out, one JSON object a line.

The output is also the memory of what is done: a line is written when its answer is complete, and a
line that an interruption cut off is dropped before the next run adds its own.
"""

from __future__ import annotations

import fcntl
import uuid
from collections.abc import Iterator
from io import BufferedWriter
from pathlib import Path
from typing import Any

import msgspec

from inarch.errors import InarchError, InvalidRequestError

URLS = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings")


class Request(msgspec.Struct, frozen=True):
    """A line of the input."""

    custom_id: str
    url: str
    body: dict[str, Any]
    method: str = "POST"

    def check(self) -> None:
        """Raise InvalidRequestError for what no batch does."""
        if self.method != "POST" or self.url not in URLS:
            raise InvalidRequestError(
                f"a batch does POST to {', '.join(URLS)}, not {self.method} {self.url}"
            )
        if self.body.get("stream"):
            raise InvalidRequestError("a batch has nobody to stream to: leave out stream")


def read_requests(path: Path) -> Iterator[Request]:
    """The lines of a batch file. Raises InarchError with the number of a line that is wrong."""
    seen: set[str] = set()
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                request = msgspec.json.decode(line, type=Request)
            except msgspec.DecodeError as error:
                raise InarchError(f"{path}, line {number}: {error}") from None
            if request.custom_id in seen:
                raise InarchError(
                    f"{path}, line {number}: custom_id {request.custom_id!r} was there before; each"
                    " names one answer"
                )
            seen.add(request.custom_id)
            yield request


class Answers:
    """The output file. `done` are the custom ids that it has answers to."""

    def __init__(self, path: Path) -> None:
        """Raises InarchError if it is there and is something else, or in use."""
        self._path = path
        self.done: set[str] = set()
        self._file: BufferedWriter = path.open("ab")
        try:
            self._lock()
            self._file.truncate(self._read())
        except BaseException:
            self._file.close()
            raise

    def _lock(self) -> None:
        """Two at once would each answer everything."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InarchError(
                f"{self._path}: another inarch batch is writing to it; let it end, or name another"
                " --output"
            ) from None

    def _read(self) -> int:
        """Where the whole lines end."""
        end = 0
        with self._path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    break
                try:
                    self.done.add(msgspec.json.decode(line)["custom_id"])
                except (msgspec.DecodeError, KeyError, TypeError):
                    raise InarchError(
                        f"{self._path}, line {number}: no answer of a batch; name another --output"
                    ) from None
                end += len(line)
        return end

    def add(self, custom_id: str, status: int, body: Any) -> None:
        """Keep an answer; it is in the file when this returns."""
        line = {
            "id": f"batch_req_{uuid.uuid4().hex}",
            "custom_id": custom_id,
            "response": {"status_code": status, "request_id": uuid.uuid4().hex, "body": body},
            "error": None,
        }
        self._file.write(msgspec.json.encode(line) + b"\n")
        self._file.flush()
        self.done.add(custom_id)

    def close(self) -> None:
        self._file.close()
