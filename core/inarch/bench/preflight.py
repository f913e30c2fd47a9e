"""Questions before the load: is the server there, what does it serve, does it take such requests?

One small request finds what would fail all of them (a wrong key, an unknown field, an endpoint that
is not there), so that it is said in one line instead of once a request.
"""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import replace

import aiohttp
import msgspec

from inarch.bench import BenchError
from inarch.bench.client import PATHS, Reply, Target, error_text, open_session, send
from inarch.bench.workload import BenchRequest

MODELS_TIMEOUT_S = 10.0
TEST_TOKENS = 4  # length of the test prompt


class ModelCard(msgspec.Struct):
    id: str


class ModelList(msgspec.Struct):
    data: list[ModelCard]


def normalize_url(url: str) -> str:
    """The address of the server: a scheme in front, no /v1 and no slash behind."""
    url = url if "://" in url else f"http://{url}"
    if not url.startswith(("http://", "https://")):
        raise BenchError(f"bad address {url!r}: write it as http://127.0.0.1:30000")
    return url.rstrip("/").removesuffix("/v1")


def check_server(target: Target, model: str | None, sample: BenchRequest) -> Target:
    """The target with the name of its model filled in, after a test request like `sample`.

    `model` None takes the first that the server lists. Raises BenchError with what to do.
    """
    return asyncio.run(_check_server(target, model, sample))


async def _check_server(target: Target, model: str | None, sample: BenchRequest) -> Target:
    async with open_session(target) as session:
        served = await _served_models(session, target)
        target = replace(target, body={"model": _choose(model, served, target.url), **target.body})
        test = replace(sample, prompt=_beginning(sample), output_len=1, offset_s=0.0)
        record = await send(session, target, test, time.perf_counter(), Reply())
    if record.error is not None:
        where = target.url + PATHS[target.endpoint]
        raise BenchError(f"{where} refused a test request: {record.error}")
    return target


async def _served_models(session: aiohttp.ClientSession, target: Target) -> list[str]:
    """Model names; empty when the server has no such list."""
    timeout = aiohttp.ClientTimeout(total=MODELS_TIMEOUT_S)
    try:
        async with session.get(f"{target.url}/v1/models", timeout=timeout) as response:
            status, body = response.status, await response.read()
    except (aiohttp.ClientError, OSError) as error:
        raise BenchError(
            f"cannot reach {target.url} ({_reason(error)}): is the server running? "
            "Give its address with --url"
        ) from None
    if status in (401, 403):
        raise BenchError(f"{target.url} wants another key (--api-key): {error_text(body)}")
    try:
        return [card.id for card in msgspec.json.decode(body, type=ModelList).data]
    except msgspec.DecodeError:
        return []


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {MODELS_TIMEOUT_S:g} s"
    number = getattr(error, "errno", None) or 0
    return os.strerror(number) if number > 0 else str(error)


def _choose(model: str | None, served: list[str], url: str) -> str:
    if model is None and not served:
        raise BenchError(f"{url}/v1/models lists no model: name it with --model")
    if model is not None and served and model not in served:
        raise BenchError(f"{url} does not serve {model!r}; it serves: {', '.join(served)}")
    return model or served[0]


def _beginning(request: BenchRequest) -> str | tuple[int, ...] | list[dict[str, object]]:
    """A short prompt of the same kind."""
    if isinstance(request.prompt, str):
        return " ".join(request.prompt.split()[:TEST_TOKENS])
    return request.prompt[:TEST_TOKENS] if isinstance(request.prompt, tuple) else request.prompt
