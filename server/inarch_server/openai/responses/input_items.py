"""/v1/responses/{id}/input_items: what a response was asked with, a page at a time."""

from __future__ import annotations

from aiohttp import web

from inarch.errors import InvalidRequestError
from inarch_server.http.encoding import json_response
from inarch_server.openai.responses.handlers import check_one_worker
from inarch_server.openai.responses.store import RESPONSES
from inarch_server.service import SERVICE

USUAL, MOST = 20, 100  # items of a page


async def input_items(request: web.Request) -> web.Response:
    """The items of this request alone: those before it are the input of the responses before."""
    check_one_worker(request.app[SERVICE])
    items = list(request.app[RESPONSES].get(request.match_info["id"]).given)
    if _order(request) == "desc":
        items.reverse()
    if (after := request.query.get("after")) is not None:
        items = items[_place(after, [item["id"] for item in items]) + 1 :]
    page = items[: _limit(request)]
    return json_response(
        {
            "object": "list",
            "data": page,
            "first_id": page[0]["id"] if page else None,
            "last_id": page[-1]["id"] if page else None,
            "has_more": len(page) < len(items),
        }
    )


def _order(request: web.Request) -> str:
    order = request.query.get("order", "desc")
    if order not in ("asc", "desc"):
        raise InvalidRequestError(f"order must be asc or desc, got {order[:80]!r}", param="order")
    return order


def _limit(request: web.Request) -> int:
    said = request.query.get("limit", str(USUAL))
    if not (said.isascii() and said.isdecimal() and len(said) < 4 and 1 <= int(said) <= MOST):
        raise InvalidRequestError(
            f"limit must be a number from 1 to {MOST}, got {said[:80]!r}", param="limit"
        )
    return int(said)


def _place(after: str, ids: list[str]) -> int:
    if after not in ids:
        raise InvalidRequestError(f"after: there is no item {after[:80]!r}", param="after")
    return ids.index(after)
