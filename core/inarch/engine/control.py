"""Orders that concern the engine as a whole: flush, pause, profile, hand over prefixes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from inarch.engine.core import EngineCore
from inarch.engine.messages import (
    AbortByName,
    ClearCache,
    Cleared,
    Continue,
    Done,
    ExportPrefix,
    FromEngine,
    ImportPrefix,
    Order,
    Pause,
    Prefixed,
    StartProfile,
    StopProfile,
)
from inarch.engine.prefixes import Prefixes
from inarch.engine.profiling import Profile
from inarch.errors import InarchError


class Control:
    """Carries out orders between two steps, and answers whoever gave them."""

    def __init__(
        self,
        core: EngineCore,
        send: Callable[[bytes, FromEngine], None],
        send_all: Callable[[FromEngine], None],
        prefixes: Prefixes,
    ) -> None:
        self._core, self._send, self._send_all = core, send, send_all
        self._prefixes = prefixes
        self._profile: Profile | None = None

    def obey(self, client: bytes, order: Order) -> None:
        error = ""
        match order:
            case ClearCache():
                pages = self._core.scheduler.pool.clear_cache()
                self._send(client, Cleared(ticket=order.ticket, pages=pages))
                return
            case ExportPrefix() | ImportPrefix():
                self._send(client, self._hand_over(order))
                return
            case Pause():
                self._core.pause(retract=order.mode == "retract")
                if order.mode == "abort":
                    self._send_all(AbortByName(request_id=None))
            case Continue():
                self._core.proceed()
            case StartProfile():
                error = self._start_profile(order)
            case StopProfile():
                error = self._stop_profile()
        self._send(client, Done(ticket=order.ticket, error=error))

    def stepped(self) -> None:
        """A step was taken: a profile may have had enough of them."""
        if self._profile is not None and self._profile.stepped():
            self._stop_profile()

    def _hand_over(self, order: ExportPrefix | ImportPrefix) -> Prefixed:
        ticket, namespace = order.ticket, order.namespace
        try:
            if isinstance(order, ImportPrefix):
                tokens = self._prefixes.import_prefix(order.data, namespace)
                return Prefixed(ticket=ticket, tokens=tokens)
            wanted = np.frombuffer(order.tokens, dtype=np.int32)
            data = self._prefixes.export_prefix(wanted, namespace)
            return Prefixed(ticket=ticket, data=data)
        except InarchError as error:
            return Prefixed(ticket=ticket, error=str(error))

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
