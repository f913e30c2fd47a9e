"""From the sampling fields of a request, over the model's own defaults, to SamplingParams."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from inarch.errors import InvalidRequestError
from inarch.sampling import SamplingParams
from inarch_server.answering.sampling_body import SamplingBody
from inarch_server.http.body import path

if TYPE_CHECKING:
    from inarch.engine.async_engine import AsyncEngine

# Fields of SamplingParams that a request names alike (logprobs differs with every endpoint).
SHARED = [name for name in SamplingParams.__struct_fields__ if name in SamplingBody.model_fields]


def sampling_params(
    engine: AsyncEngine, body: SamplingBody, *, under: str = "", **worked_out: tuple[str, Any]
) -> SamplingParams:
    """What the request says, else what the model's generation_config.json says, else "off".

    `under` is the path of `body` in the request. `worked_out` are fields whose value the endpoint
    found itself, each with the path of where it stands in the request.
    """
    said = {name: getattr(body, name) for name in SHARED}
    said |= {name: value for name, (_, value) in worked_out.items()}
    given = {name: value for name, value in said.items() if value is not None}
    given["grammar"] = body.constraint(under)
    params = SamplingParams(**(engine.info.default_sampling | given))
    try:
        params.check(engine.info.vocab_size)
    except InvalidRequestError as error:
        ours = error.param or ""
        theirs = worked_out[ours][0] if ours in worked_out else _path(type(body), under, ours)
        raise _renamed(error, ours, theirs) from None
    return params


def _path(body: type[SamplingBody], under: str, name: str) -> str:
    field = body.model_fields.get(name)
    return path([under, field.alias if field is not None and field.alias else name])


def _renamed(error: InvalidRequestError, ours: str, theirs: str) -> InvalidRequestError:
    """The same error, with the field called what the client calls it."""
    message = str(error).replace(ours, theirs, 1) if ours else str(error)
    return InvalidRequestError(message, param=theirs, status=error.status, code=error.code)
