"""What responses were given, so that a conversation can go on from one: bounded in number and age.

It is in the memory of this process: nothing is written anywhere, and a restart forgets it.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from inarch.errors import InvalidRequestError
from inarch_server.openai.responses.items import Messages

MOST = 1000  # responses
LONGEST_S = 3600.0


@dataclass(frozen=True)
class Stored:
    response: dict[str, Any]
    messages: Messages  # the whole conversation up to and with the answer, without instructions
    at_s: float


class ResponseStore:
    def __init__(self, most: int = MOST, longest_s: float = LONGEST_S) -> None:
        self._most, self._longest_s = most, longest_s
        self._kept: OrderedDict[str, Stored] = OrderedDict()  # oldest first

    def keep(self, response: dict[str, Any], messages: Messages) -> None:
        self._kept[response["id"]] = Stored(response, messages, time.monotonic())
        self._forget()

    def get(self, name: str, param: str | None = None) -> Stored:
        """Raises InvalidRequestError with status 404."""
        self._forget()
        try:
            return self._kept[name]
        except KeyError:
            raise InvalidRequestError(
                f"response {name!r} is not kept here: the last {self._most} are, for"
                f" {self._longest_s:g} s each, if they were made with store: true",
                param=param,
                status=404,
                code="response_not_found",
            ) from None

    def delete(self, name: str) -> None:
        self.get(name)
        del self._kept[name]

    def _forget(self) -> None:
        now = time.monotonic()
        while self._kept:
            oldest = next(iter(self._kept.values()))
            if len(self._kept) <= self._most and now - oldest.at_s <= self._longest_s:
                return
            self._kept.popitem(last=False)


RESPONSES: web.AppKey[ResponseStore] = web.AppKey("responses", ResponseStore)
