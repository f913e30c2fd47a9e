"""What responses were given, so that a conversation can go on from one: bounded in number, size and age.

It is in the memory of this process: nothing is written anywhere, and a restart forgets it.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from inarch.errors import InvalidRequestError
from inarch_server.http.encoding import encode
from inarch_server.openai.responses.items import Item, Messages

MOST = 1000  # responses
MOST_BYTES = 256 << 20  # of JSON; what conversations share is counted for each of them
LONGEST_S = 3600.0


@dataclass(frozen=True)
class Stored:
    response: dict[str, Any]
    messages: Messages  # the whole conversation up to and with the answer, without instructions
    given: Sequence[Item]  # what this request added to it
    at_s: float
    size: int  # bytes


class ResponseStore:
    def __init__(
        self, most: int = MOST, longest_s: float = LONGEST_S, most_bytes: int = MOST_BYTES
    ) -> None:
        self._most, self._longest_s, self._most_bytes = most, longest_s, most_bytes
        self._kept: OrderedDict[str, Stored] = OrderedDict()  # oldest first
        self._bytes = 0

    def keep(
        self, response: dict[str, Any], messages: Messages, given: Sequence[Item] = ()
    ) -> None:
        size = len(encode([response, messages]))
        self._kept[response["id"]] = Stored(response, messages, given, time.monotonic(), size)
        self._bytes += size
        self._forget()

    def get(self, name: str, param: str | None = None) -> Stored:
        """Raises InvalidRequestError with status 404."""
        self._forget()
        try:
            return self._kept[name]
        except KeyError:
            raise InvalidRequestError(
                f"response {name!r} is not kept here: the last {self._most} are, up to"
                f" {self._most_bytes >> 20} MiB, for {self._longest_s:g} s each, if they were made"
                " with store: true",
                param=param,
                status=404,
                code="response_not_found",
            ) from None

    def delete(self, name: str) -> None:
        self._bytes -= self.get(name).size
        del self._kept[name]

    def _forget(self) -> None:
        now = time.monotonic()
        while self._kept:
            oldest = next(iter(self._kept.values()))
            few = len(self._kept) <= self._most and self._bytes <= self._most_bytes
            if few and now - oldest.at_s <= self._longest_s:
                return
            self._kept.popitem(last=False)
            self._bytes -= oldest.size


RESPONSES: web.AppKey[ResponseStore] = web.AppKey("responses", ResponseStore)
