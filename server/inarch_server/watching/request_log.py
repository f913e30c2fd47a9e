"""The request log: one JSON object a line for every request that is over, on standard output.

Nothing of a prompt or an answer is in it, unless that was asked for: error messages can quote a
request, so they are left out too.
"""

from __future__ import annotations

import datetime
import logging
import sys
from typing import TYPE_CHECKING, Any

import msgspec

from inarch.sampling import SamplingParams
from inarch_server.watching.account import Account

if TYPE_CHECKING:
    from inarch.engine.text.tokenizer import Tokenizer

log = logging.getLogger("inarch.requests")
log.propagate = False  # the lines are for programs: no prefix


class RequestLog:
    """with_text: log prompts and answers too."""

    def __init__(self, tokenizer: Tokenizer, *, with_text: bool) -> None:
        self._tokenizer, self._with_text = tokenizer, with_text
        log.setLevel(logging.INFO)
        if not log.handlers:
            log.addHandler(logging.StreamHandler(sys.stdout))

    def __call__(self, account: Account) -> None:
        if account.method != "GET":
            log.info(msgspec.json.encode(self._line(account)).decode())

    def _line(self, account: Account) -> dict[str, Any]:
        received = datetime.datetime.fromtimestamp(account.unix_ns(account.received_s) / 1e9)
        line: dict[str, Any] = {
            "time": received.astimezone().isoformat(timespec="milliseconds"),
            "id": account.id,
            "route": account.route,
            "status": account.status,
            "seconds": round(account.seconds, 6),
        }
        if account.error is not None:
            shown = ("type", "param", "code", *(["message"] if self._with_text else []))
            line["error"] = {name: account.error[name] for name in shown}
        if account.answers is not None:
            line |= _answers(account)
            if self._with_text:
                line |= self._texts(account)
        return line

    def _texts(self, account: Account) -> dict[str, Any]:
        answers = account.answers
        assert answers is not None
        assert answers.transcript is not None
        prompts = [
            self._tokenizer.decode(prompt.ids, skip_special_tokens=False)
            for prompt in answers.prompts
        ]
        texts = ["".join(answers.transcript.get(i, ())) for i in range(answers.choices)]
        return {"prompts": prompts, "answers": texts}


def _answers(account: Account) -> dict[str, Any]:
    answers = account.answers
    assert answers is not None
    watch, usage = answers.stopwatch, answers.usage()
    first = watch.first_token_s
    return {
        "queued_seconds": None if watch.queued_s is None else round(watch.queued_s, 6),
        "first_token_seconds": None if first is None else round(first - account.received_s, 6),
        "prompt_tokens": usage["prompt_tokens"],
        "cached_tokens": usage["prompt_tokens_details"]["cached_tokens"],
        "completion_tokens": usage["completion_tokens"],
        "finish_reasons": account.finish_reasons,
        "sampling": [_sampling(params) for params in _distinct(answers.params)],
    }


def _distinct(params: Any) -> list[SamplingParams]:
    """One entry if all prompts of the request have the same, else one for each prompt."""
    return list(params) if any(one != params[0] for one in params) else [params[0]]


def _sampling(params: SamplingParams) -> dict[str, Any]:
    """What differs from the defaults; of a grammar its kind alone, since its source can be long."""
    shown: dict[str, Any] = msgspec.to_builtins(params, str_keys=True)
    if params.grammar is not None:
        shown["grammar"] = params.grammar.kind
    return shown
