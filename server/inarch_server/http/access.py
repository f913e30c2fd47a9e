"""Who may do what: everybody, who has the API key, or who runs the server.

The routes of ADMIN concern all users. With --admin-api-key they want that key. Without one they
answer on this machine only, and want the API key if there is one: a request counts as local if its
connection comes from a loopback address, no proxy says that it passed it on, and no web page of
somebody else's sent it.
"""

from __future__ import annotations

import hmac
import ipaddress

from aiohttp import hdrs, web
from yarl import URL

from inarch.config import EngineConfig
from inarch.errors import InvalidRequestError
from inarch_server.service import SERVICE

OPEN = frozenset({"/health", "/"})  # probes send no key; the page asks its reader for one
STATIC = "/static/"  # what the page is made of
# /abort_request is one of them where it ends all requests, and not one.
ADMIN = frozenset(
    {
        "/flush_cache",
        "/pause_generation",
        "/continue_generation",
        "/start_profile",
        "/stop_profile",
    }
)
# By these a proxy says for whom it asks.
FORWARDED = (hdrs.FORWARDED, hdrs.X_FORWARDED_FOR, "X-Forwarded-Host", "X-Real-IP", hdrs.VIA)


def check_access(request: web.Request) -> None:
    """Raise InvalidRequestError (401, 403) unless this client may use this route."""
    if request.path in ADMIN:
        check_admin(request)
    elif request.path not in OPEN and not request.path.startswith(STATIC):
        check_user(request)


def check_user(request: web.Request) -> None:
    config = request.app[SERVICE].config
    if config.api_key is not None:
        _check_key(request, "API key", config.api_key, config.admin_api_key)


def check_admin(request: web.Request) -> None:
    config: EngineConfig = request.app[SERVICE].config
    if config.admin_api_key is not None:
        _check_key(request, "admin key", config.admin_api_key)
        return
    if not is_local(request):
        raise InvalidRequestError(
            f"{request.path} concerns all users: without --admin-api-key it answers only requests that"
            " come straight from the server's own machine, to localhost",
            status=403,
            code="admin_only",
        )
    check_user(request)


def is_local(request: web.Request) -> bool:
    """Whether whoever asks is on this machine, as far as can be known."""
    peer = request.transport.get_extra_info("peername") if request.transport is not None else None
    if not peer or not _is_loopback(peer[0]):
        return False
    if any(name in request.headers for name in FORWARDED):
        return False
    # A page from elsewhere, open in a browser on this machine, gets this far. The browser says so, or
    # names the page's origin, or (if that name was made to mean this address) asks a host of that name.
    if request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
        return False
    origins = (request.headers.get(hdrs.ORIGIN), f"http://{request.headers.get(hdrs.HOST, '')}")
    return all(_names_this_machine(origin) for origin in origins if origin is not None)


def _check_key(request: web.Request, what: str, *keys: str | None) -> None:
    sent = _sent_key(request).encode(errors="surrogateescape")
    # In constant time: how long a refusal takes must not tell how much of the key was right.
    right = [hmac.compare_digest(sent, f"Bearer {key}".encode()) for key in keys if key is not None]
    if not any(right):
        why = f"the {what} is wrong" if sent else f"an {what} is needed"
        raise InvalidRequestError(
            f"{why}; send it as 'Authorization: Bearer KEY'", status=401, code="invalid_api_key"
        )


def _sent_key(request: web.Request) -> str:
    """As the usual header has it, whichever header it came in: Anthropic's clients know another."""
    bare = request.headers.get("x-api-key")
    return request.headers.get(hdrs.AUTHORIZATION) or (f"Bearer {bare}" if bare else "")


def _names_this_machine(origin: str) -> bool:
    try:
        host = URL(origin).host
    except ValueError:
        return False
    return host is not None and (host == "localhost" or _is_loopback(host))


def _is_loopback(address: str) -> bool:
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return (mapped or found).is_loopback
