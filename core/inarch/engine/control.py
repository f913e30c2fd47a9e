"""Orders that concern the engine as a whole: flush, pause, end requests, profile."""

from __future__ import annotations

from collections.abc import Callable

from inarch.engine.core import EngineCore
from inarch.engine.messages import (
    AbortAll,
    Aborted,
    ClearCache,
    Cleared,
    Continue,
    Done,
    FromEngine,
    Order,
    Pause,
    StartProfile,
    StopProfile,
)
from inarch.engine.profiling import Profile


class Control:
    """Carries out orders between two steps, and answers whoever gave them."""

    def __init__(self, core: EngineCore, send: Callable[[bytes, FromEngine], None]) -> None:
        self._core, self._send = core, send
        self._profile: Profile | None = None

    def obey(self, client: bytes, order: Order) -> None:
        match order:
            case ClearCache():
                pages = self._core.scheduler.clear_cache()
                self._send(client, Cleared(ticket=order.ticket, pages=pages))
            case AbortAll():
                self._done(client, order, count=self._abort(order.rid))
            case Pause():
                self._core.pause(retract=order.mode == "retract")
                self._done(client, order, self._abort(None) if order.mode == "abort" else 0)
            case Continue():
                self._core.proceed()
                self._done(client, order)
            case StartProfile():
                self._done(client, order, error=self._start_profile(order))
            case StopProfile():
                self._done(client, order, error=self._stop_profile())

    def stepped(self) -> None:
        """A step was taken: a profile may have had enough of them."""
        if self._profile is not None and self._profile.stepped():
            self._stop_profile()

    def _done(self, client: bytes, order: Order, count: int = 0, error: str = "") -> None:
        self._send(client, Done(ticket=order.ticket, count=count, error=error))

    def _abort(self, rid: str | None) -> int:
        ended = self._core.abort_all(rid)
        for client, handles in ended.items():
            self._send(client, Aborted(handles=handles))
        return sum(map(len, ended.values()))

    def _start_profile(self, order: StartProfile) -> str:
        if self._profile is not None:
            return f"a profile is being recorded already, to {self._profile.path}; stop it first"
        self._profile = Profile(order.path, order.steps)
        return ""

    def _stop_profile(self) -> str:
        if self._profile is None:
            return "no profile is being recorded; it may have ended after its number of steps"
        profile, self._profile = self._profile, None
        return profile.finish()
