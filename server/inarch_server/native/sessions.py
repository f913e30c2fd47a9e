"""Sessions: prompts that go on where an earlier request ended, without being sent again.

A session is a tree of requests. Each keeps the tokens that it added to the one before it; its prompt
is all that was said from the beginning on, most of which the engine's prefix cache still has. Append
to any request to branch there.
"""

from __future__ import annotations

import asyncio
import uuid
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

from aiohttp import web

from inarch.errors import InvalidRequestError
from inarch_server.http.body import read_body
from inarch_server.http.encoding import json_response
from inarch_server.native.protocol import CloseSession, OpenSession, SessionParams
from inarch_server.service import SERVICE

MAX_SESSIONS = 4096
MAX_TURNS = 4096  # of one session
IDLE_S = 3600.0  # after which a session without a timeout of its own is closed


def _no_tokens() -> array[int]:
    return array("i")


@dataclass(eq=False)
class Turn:
    """One request of a session: what it kept of the one before, and what it added.

    Others may go on from it once it was left, whatever the reason, from what there is then.
    """

    before: Turn | None
    kept: int  # tokens
    added: array[int]
    output: array[int] = field(default_factory=_no_tokens)
    finished: bool = False

    @property
    def prompt(self) -> list[int]:
        parts, turn, kept = [self.added], self.before, self.kept
        while turn is not None:
            own = turn.added + turn.output
            parts.append(own[: max(kept - turn.kept, 0)])
            kept = min(kept, turn.kept)
            turn = turn.before
        return [token for part in reversed(parts) for token in part]

    @property
    def length(self) -> int:
        """Tokens of prompt and answer."""
        return self.kept + len(self.added) + len(self.output)

    def hear(self, tokens: Sequence[int]) -> None:
        """More of the answer."""
        self.output.extend(tokens)

    def __enter__(self) -> Turn:
        return self

    def __exit__(self, *_: object) -> None:
        self.finished = True

    def follows(self, other: Turn) -> bool:
        turn = self.before
        while turn is not None and turn is not other:
            turn = turn.before
        return turn is other


@dataclass(eq=False)
class Session:
    capacity: int | None  # tokens of prompt and answer together
    timeout_s: float  # without a request, after which it is closed
    appends: bool  # a turn that names no other goes on from the last one
    turns: dict[str, Turn] = field(default_factory=dict)
    last: str | None = None
    alarm: asyncio.TimerHandle | None = None

    def add(self, asked: SessionParams, rid: str, ids: Sequence[int]) -> Turn:
        """The turn `rid`, which adds `ids`. Raises InvalidRequestError."""
        before = self._before(asked)
        kept = 0 if before is None else _kept(before, asked)
        turn = Turn(before, kept, array("i", ids))
        if self.capacity is not None and turn.length > self.capacity:
            raise InvalidRequestError(
                f"session {asked.id!r} would hold {turn.length} tokens, more than its capacity of"
                f" {self.capacity}; go on from an earlier request, or open a larger one",
                param="session_params.id",
            )
        if asked.replace:
            self._forget_after(before)
        if rid in self.turns or len(self.turns) >= MAX_TURNS:
            what = f"a request {rid!r} already" if rid in self.turns else f"{MAX_TURNS} requests"
            raise InvalidRequestError(f"session {asked.id!r} has {what}", param="rid")
        self.turns[rid], self.last = turn, rid
        return turn

    def _before(self, asked: SessionParams) -> Turn | None:
        name = asked.rid
        if name is None and self.appends and not asked.replace:
            name = self.last
        if name is None:
            return None
        turn = self.turns.get(name)
        if turn is None:
            raise InvalidRequestError(
                f"session {asked.id!r} has no request {name!r}", param="session_params.rid"
            )
        if not turn.finished:
            raise InvalidRequestError(
                f"request {name!r} of session {asked.id!r} has not finished",
                param="session_params.rid",
            )
        return turn

    def _forget_after(self, before: Turn | None) -> None:
        self.turns = {
            rid: turn
            for rid, turn in self.turns.items()
            if before is not None and not turn.follows(before)
        }


class Sessions:
    """All open sessions of one front end."""

    def __init__(self) -> None:
        self._sessions: dict[str, Session] = {}

    def open(self, asked: OpenSession) -> str:
        """Raises InvalidRequestError if there is one of that name, or there are too many."""
        name = asked.session_id or uuid.uuid4().hex
        if name in self._sessions:
            raise InvalidRequestError(f"session {name!r} is open already", param="session_id")
        if len(self._sessions) >= MAX_SESSIONS:
            raise InvalidRequestError(
                f"{MAX_SESSIONS} sessions are open; close one first, or give them a shorter timeout",
                status=503,
                code="overloaded",
            )
        timeout_s = asked.timeout if asked.timeout is not None else IDLE_S
        session = Session(asked.capacity_of_str_len, timeout_s, bool(asked.streaming))
        self._sessions[name] = session
        self._wind(name, session)
        return name

    def close(self, name: str) -> None:
        session = self._sessions.pop(name, None)
        if session is None:
            raise _unknown(name, "session_id")
        if session.alarm is not None:
            session.alarm.cancel()

    def turn(self, asked: SessionParams, rid: str, ids: Sequence[int]) -> Turn:
        session = self._sessions.get(asked.id)
        if session is None:
            raise _unknown(asked.id, "session_params.id")
        self._wind(asked.id, session)
        return session.add(asked, rid, ids)

    def goes_on(self, asked: SessionParams) -> bool:
        """Whether a prompt continues an earlier one: then nothing belongs before its text."""
        session = self._sessions.get(asked.id)
        appends = session is not None and session.appends and session.last is not None
        return asked.rid is not None or (appends and not asked.replace)

    def _wind(self, name: str, session: Session) -> None:
        if session.alarm is not None:
            session.alarm.cancel()
        loop = asyncio.get_running_loop()
        session.alarm = loop.call_later(session.timeout_s, self.close, name)


def _kept(before: Turn, asked: SessionParams) -> int:
    """How many tokens of an earlier request a new one keeps."""
    whole = before.length
    if asked.drop_previous_output:
        whole -= len(before.output)
    return len(range(whole)[: asked.offset]) if asked.offset else whole


def _unknown(name: str, param: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"no session {name!r} is open; it may have been closed for idling: after its timeout, or"
        f" {IDLE_S:g} s if it was opened without one",
        param=param,
        status=404,
    )


SESSIONS: web.AppKey[Sessions] = web.AppKey("sessions", Sessions)


async def open_session(request: web.Request) -> web.Response:
    """Answers with the session's id, as JSON text."""
    body = await read_body(request, OpenSession)
    workers = request.app[SERVICE].config.api_workers
    if workers > 1:
        raise InvalidRequestError(
            f"sessions live in one front-end process, and this server has {workers}: a request would"
            " reach another one. Start it with --api-workers 1, or send whole prompts: the prefix"
            " cache makes them as quick"
        )
    return json_response(request.app[SESSIONS].open(body))


async def close_session(request: web.Request) -> web.Response:
    body = await read_body(request, CloseSession)
    request.app[SESSIONS].close(body.session_id)
    return json_response({"success": True})
