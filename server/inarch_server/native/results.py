"""What /generate answers: the text, its tokens, and all that SGLang says of them in `meta_info`."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from inarch.engine.outputs import TokenLogprob
from inarch_server.answering import logprobs, sse
from inarch_server.answering.answers import Answers, Piece
from inarch_server.http.encoding import encode
from inarch_server.native.protocol import Asked
from inarch_server.native.sessions import Turn

if TYPE_CHECKING:
    from inarch.engine.text.tokenizer import Tokenizer


class Results(sse.DataEvents):
    """The answers so far. Every event of a stream repeats all of its choice, as SGLang's do."""

    def __init__(
        self,
        answers: Answers,
        asked: Sequence[Asked | None],
        tokenizer: Tokenizer,
        turn: Turn | None = None,
        *,
        listed: bool,
        with_text: bool,
    ) -> None:
        """asked: of each prompt; turn: of the session that hears the answer; listed: many results,
        even if there is one; with_text: beside the token ids of log-probabilities."""
        self._answers, self._asked, self._tokenizer = answers, asked, tokenizer
        self._turn, self._with_text = turn, with_text
        self._start = time.perf_counter()
        self._so_far: dict[int, dict[str, Any]] = {}
        self.are_many = listed or len(answers.prompts) > 1 or answers.params[0].n > 1

    def add(self, piece: Piece) -> dict[str, Any]:
        """The result of the piece's choice up to and with the piece."""
        result = self._so_far.get(piece.index)
        if result is None:
            result = {"text": "", "output_ids": [], "meta_info": self._begin(piece)}
            self._so_far[piece.index] = result
        if self._turn is not None:
            self._turn.hear(piece.token_ids)
        result["text"] += piece.text
        result["output_ids"] += piece.token_ids
        meta = result["meta_info"]
        meta["completion_tokens"] = piece.completion_tokens
        meta["cached_tokens"] = piece.cached_tokens
        meta["finish_reason"] = _finish_reason(piece)
        meta["e2e_latency"] = time.perf_counter() - self._start
        if asked := self._asked[piece.prompt]:
            self._tell(meta, "output", piece.logprobs, asked)
        return result

    def of(self, piece: Piece) -> bytes:
        result = self.add(piece)
        shown = {"index": piece.index, **result} if self.are_many else result
        return sse.event(encode(shown))

    def _begin(self, piece: Piece) -> dict[str, Any]:
        ids, asked = self._answers.prompts[piece.prompt].ids, self._asked[piece.prompt]
        meta: dict[str, Any] = {
            "id": self._answers.ids[piece.prompt],
            "prompt_tokens": len(ids),
        }
        if asked is not None:
            self._tell(meta, "input", (), asked)
        if asked is not None and asked.of_prompt:
            # SGLang says nothing of the first token that is asked about, wherever it stands.
            first = [None, ids[asked.start], self._text(ids[asked.start])]
            meta["input_token_logprobs"].append(first)
            for name in ("input_top_logprobs", "input_token_ids_logprobs"):
                if name in meta:
                    meta[name].append(None)
            self._tell(meta, "input", piece.prompt_logprobs, asked)
        return meta

    def _tell(
        self, meta: dict[str, Any], side: str, entries: Iterable[TokenLogprob], asked: Asked
    ) -> None:
        """Add to the lists of the prompt's or the answer's log-probabilities."""
        entries = list(entries)
        chosen = [(entry.token_id, entry.logprob) for entry in entries]
        meta.setdefault(f"{side}_token_logprobs", []).extend(self._triples(chosen))
        if asked.top:
            tops = [self._triples(entry.top) for entry in entries]
            meta.setdefault(f"{side}_top_logprobs", []).extend(tops)
        if asked.token_ids:
            named = [
                self._triples(zip(asked.token_ids, entry.wanted, strict=True)) for entry in entries
            ]
            meta.setdefault(f"{side}_token_ids_logprobs", []).extend(named)

    def _triples(self, entries: Iterable[tuple[int, float]]) -> list[list[Any]]:
        return logprobs.native(self._tokenizer, entries, self._with_text)

    def _text(self, token: int) -> str | None:
        return self._tokenizer.token_text(token) if self._with_text else None


def _finish_reason(piece: Piece) -> dict[str, Any] | None:
    match piece.finish_reason:
        case None:
            return None
        case "stop":
            return {"type": "stop", "matched": piece.matched_stop}
        case "length":
            return {"type": "length", "length": piece.completion_tokens}
        case "abort":
            return {"type": "abort", "message": "the request was aborted"}
        case other:
            return {"type": other}
