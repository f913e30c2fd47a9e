"""Where programs run that are not told."""

from __future__ import annotations

from typing import Any

from inarch.engine.engine import Engine
from inarch.errors import InvalidRequestError
from inarch.lang.executors.executor import Executor
from inarch.lang.executors.in_process import executor_of
from inarch.lang.offline import Engine as OfflineEngine

Backend = Executor | Engine | OfflineEngine

_default: list[Executor] = []


def set_default_backend(backend: Backend | None) -> None:
    """Where programs run that are given no `backend`: a Runtime, an Engine, a server."""
    _default[:] = [] if backend is None else [executor_for(backend)]


def executor_for(backend: Backend | None) -> Executor:
    """Raises InvalidRequestError if there is none, or it is none."""
    if isinstance(backend, Engine):
        return executor_of(backend)
    if isinstance(backend, OfflineEngine):
        return backend.runtime
    if backend is not None:
        if not all(hasattr(backend, name) for name in ("generate", "prepare", "score", "defaults")):
            raise InvalidRequestError(
                "programs run on a Runtime, an Engine, a RuntimeEndpoint, OpenAI or Anthropic, not on"
                f" {type(backend).__name__}",
                param="backend",
            )
        return backend
    if not _default:
        raise InvalidRequestError(
            "there is nothing to run on: set_default_backend(Runtime()), or run(backend=...)"
        )
    return _default[0]


def flush_cache(backend: Backend | None = None) -> None:
    """Forget all cached prefixes. Raises InvalidRequestError where there is no such thing."""
    _asked(backend, "flush_cache")()


def get_server_info(backend: Backend | None = None) -> dict[str, Any]:
    """What runs programs, and how it is configured."""
    info: dict[str, Any] = _asked(backend, "get_server_info")()
    return info


def _asked(backend: Backend | None, what: str) -> Any:
    executor = executor_for(backend)
    if not hasattr(executor, what):
        raise InvalidRequestError(f"{type(executor).__name__} has no {what}", param="backend")
    return getattr(executor, what)
