"""Routes by which whoever runs the server, or owns a request, intervenes."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from pathlib import Path
from typing import Literal

from aiohttp import web
from pydantic import Field, model_validator

from inarch.errors import InvalidRequestError
from inarch_server.http.access import check_admin
from inarch_server.http.body import Body, BodyT, read_body, validate
from inarch_server.http.encoding import json_response
from inarch_server.service import SERVICE, Service

PROFILES = "inarch-profiles"


class AbortRequest(Body):
    rid: str | None = Field(default=None, min_length=1)
    abort_all: bool | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> AbortRequest:
        if (self.rid is None) == (not self.abort_all):
            raise InvalidRequestError("either rid or abort_all: true is needed", param="rid")
        return self


class PauseRequest(Body):
    mode: Literal["abort", "retract", "in_place"] = "abort"


class ProfileRequest(Body):
    output_dir: str | None = Field(default=None, pattern=r"^[^\x00]*$")  # within --profile-dir
    num_steps: int | None = Field(default=None, ge=1)
    profile_name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_.-]{1,100}$")


async def flush_cache(request: web.Request) -> web.Response:
    """Forget the KV of everything that does not run."""
    pages = await request.app[SERVICE].engine.clear_cache()
    return json_response({"success": True, "pages": pages})


async def abort_request(request: web.Request) -> web.Response:
    """End a request, with what it has said so far; 200 whether or not it was there."""
    body = await read_body(request, AbortRequest)
    if body.abort_all:
        check_admin(request)
    request.app[SERVICE].engine.abort_everywhere(None if body.abort_all else body.rid)
    return json_response({"success": True})


async def pause_generation(request: web.Request) -> web.Response:
    """Compute nothing until /continue_generation: requests, also new ones, wait."""
    body = await _optional(request, PauseRequest)
    await request.app[SERVICE].engine.pause(body.mode)
    return json_response({"success": True, "mode": body.mode})


async def continue_generation(request: web.Request) -> web.Response:
    await request.app[SERVICE].engine.proceed()
    return json_response({"success": True})


async def start_profile(request: web.Request) -> web.Response:
    """Answers with the file that the trace will be in."""
    body = await _optional(request, ProfileRequest)
    service = request.app[SERVICE]
    path = await asyncio.to_thread(_trace, service, body)
    await service.engine.start_profile(str(path), body.num_steps)
    return json_response({"success": True, "path": str(path)})


async def stop_profile(request: web.Request) -> web.Response:
    """Answers when the trace is written."""
    await request.app[SERVICE].engine.stop_profile()
    return json_response({"success": True})


def _trace(service: Service, body: ProfileRequest) -> Path:
    """A file that does not exist yet, in a folder that does."""
    if service.config.profile_dir is not None:
        root = Path(service.config.profile_dir).resolve()
    else:  # of this user alone, and not followed if somebody else has put a link in its place
        root = Path(tempfile.gettempdir()).resolve() / f"{PROFILES}-{os.getuid()}"
    folder = (root / (body.output_dir or "")).resolve()
    if not folder.is_relative_to(root):
        raise InvalidRequestError(
            f"output_dir {body.output_dir!r} is not within {root}, where this server writes traces:"
            " leave it out, or start the server with another --profile-dir",
            param="output_dir",
        )
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        if service.config.profile_dir is None and root.stat().st_uid != os.getuid():
            raise PermissionError(f"{root} belongs to somebody else")
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidRequestError(
            f"traces cannot be written to {folder}: {error}", param="output_dir"
        ) from None
    name = body.profile_name or "inarch"
    return folder / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}-{time.time_ns() % 10**9:09}.json.gz"


async def _optional(request: web.Request, model: type[BodyT]) -> BodyT:
    """The body, if there is one; all of its fields have defaults."""
    if not request.can_read_body:
        return validate({}, model)
    return await read_body(request, model)
