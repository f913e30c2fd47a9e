"""What the page's live view shows, as JSON: what runs now, which kernels run it, the prefix tree.

The engine is asked only while somebody looks, and every list is bounded. Open requests and errors are
those of the process that answers: with several front ends each knows its own.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from aiohttp import web

from inarch.errors import EngineDeadError, InvalidRequestError
from inarch_server.http.access import may_see_others
from inarch_server.http.encoding import json_response
from inarch_server.service import ANSWERS, RECEIVED_S, REQUEST_ID, SERVICE, Service
from inarch_server.watching.account import Account

if TYPE_CHECKING:
    from inarch.engine.messages import CacheTree, Stats
    from inarch.engine.text.tokenizer import Tokenizer

STATS_TIMEOUT_S = 10.0  # the engine answers between two steps
SHOWN_REQUESTS = 50
KEPT_ERRORS = 50
TREE_NODES, MOST_TREE_NODES = 120, 500


class RecentErrors:
    """The last refusals and failures; the same again and again counts as one."""

    def __init__(self) -> None:
        self._kept: deque[dict[str, Any]] = deque(maxlen=KEPT_ERRORS)

    def __call__(self, account: Account) -> None:
        if account.error is None:
            return
        what = {
            "route": account.route,
            "status": account.status,
            "message": account.error["message"],
        }
        seen = {"id": account.id, "time": account.unix_ns(account.ended_s) / 1e9}
        last = self._kept[-1] if self._kept else {}
        if what == {name: last.get(name) for name in what}:
            self._kept[-1] = what | seen | {"times": last["times"] + 1}
        else:
            self._kept.append(what | seen | {"times": 1})

    def newest_first(self) -> list[dict[str, Any]]:
        return list(reversed(self._kept))


ERRORS: web.AppKey[RecentErrors] = web.AppKey("errors", RecentErrors)


async def ask(service: Service) -> Stats | None:
    """The engine's statistics; None: it does not answer."""
    try:
        async with asyncio.timeout(STATS_TIMEOUT_S):
            stats = await service.engine.stats()
    except (EngineDeadError, TimeoutError):
        return None
    service.metrics.rates.add(stats)
    return stats


async def live(request: web.Request) -> web.Response:
    """GET /live: numbers of this moment, the requests that are open, the last errors."""
    service = request.app[SERVICE]
    stats = await ask(service)
    rates = service.metrics.rates
    return json_response(
        {
            "model": service.model,
            "alive": stats is not None,
            "engine": None if stats is None else msgspec.structs.asdict(stats),
            "generated_per_s": rates.generated_per_s,
            "prompt_per_s": rates.prompt_per_s,
            "cache_hit_rate": rates.cache_hit_rate,
            "requests": _open_requests(service),
            "errors": _errors(request),
        }
    )


def _errors(request: web.Request) -> list[dict[str, Any]]:
    """Their messages can quote a request."""
    errors = request.app[ERRORS].newest_first()
    if may_see_others(request):
        return errors
    return [error | {"message": "for whoever has the admin key"} for error in errors]


def _open_requests(service: Service) -> list[dict[str, Any]]:
    """Those that wait for tokens, the oldest first."""
    asking = [request for request in service.running.values() if ANSWERS in request]
    return [_open(request) for request in asking[:SHOWN_REQUESTS]]


def _open(request: web.Request) -> dict[str, Any]:
    answers = request[ANSWERS]
    usage = answers.usage()
    return {
        "id": request[REQUEST_ID],
        "route": request.path,
        "seconds": time.perf_counter() - request[RECEIVED_S],
        "waiting": answers.stopwatch.first_token_s is None,
        "choices": answers.choices,
        "prompt_tokens": usage["prompt_tokens"],
        "completion_tokens": usage["completion_tokens"],
    }


async def kernels(request: web.Request) -> web.Response:
    """GET /kernels: for each op of the model its kernel, and why; as `inarch doctor` shows it."""
    info = request.app[SERVICE].engine.info
    ops = [
        {"op": row.op, "kernel": row.kernel, "bindings": row.bindings, "why": row.why}
        for row in info.ops
    ]
    about = {name: getattr(info, name) for name in ("backend", "device", "dtype", "kv_dtype")}
    return json_response({**about, "ops": ops})


async def cache_tree(request: web.Request) -> web.Response:
    """GET /cache_tree?nodes=N: the prefix tree in outline, what was used last first."""
    service = request.app[SERVICE]
    nodes = _wanted_nodes(request.query.get("nodes", str(TREE_NODES)))
    async with asyncio.timeout(STATS_TIMEOUT_S):
        tree = await service.engine.cache_tree(nodes)
    tokenizer = service.engine.tokenizer if may_see_others(request) else None
    shown = await asyncio.to_thread(_nodes, tree, tokenizer)
    return json_response({"tokens": tree.tokens, "nodes": shown})


def _wanted_nodes(said: str) -> int:
    if not re.fullmatch("[0-9]{1,4}", said) or not 1 <= int(said) <= MOST_TREE_NODES:
        raise InvalidRequestError(
            f"nodes must be a number between 1 and {MOST_TREE_NODES}, got {said[:20]!r}",
            param="nodes",
        )
    return int(said)


def _nodes(tree: CacheTree, tokenizer: Tokenizer | None) -> list[dict[str, Any]]:
    return [
        {
            "id": node.id,
            "parent": node.parent,
            "tokens": node.tokens,
            "running": node.locks,
            "used": node.last_used,
            "hidden": node.hidden,
            "text": tokenizer.decode(
                np.frombuffer(node.head, dtype="<i4").tolist(), skip_special_tokens=False
            )
            if node.head and tokenizer is not None
            else None,
        }
        for node in tree.nodes
    ]
