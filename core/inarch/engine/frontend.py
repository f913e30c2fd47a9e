"""The text half of an engine: from prompts to samples, and from tokens back to text.

Both engines, in-process and across processes, use this; it knows no device and no scheduler.
"""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np

from inarch.engine.messages import ModelInfo, NewRequest, TokenOutput
from inarch.engine.outputs import FinishReason, RequestOutput, TokenLogprob, prompt_entries
from inarch.engine.text.detokenizer import Detokenizer
from inarch.engine.text.stop_patterns import MatchingBudget
from inarch.engine.text.tokenizer import Tokenizer
from inarch.engine.vectors import check_generates
from inarch.errors import InarchError, InvalidRequestError
from inarch.sampling import DEFAULT_TERMS, SamplingParams, Terms, check_token_ids

SUSPECT = 2  # engines that died while they ran a sample, from which on it may be its fault
# Seeds of the n samples lie this far apart: neighbouring seeds must not share answers.
GOLDEN = 0x9E3779B97F4A7C15


@dataclass
class Sample:
    """One of the n answers to a request, while it is being written."""

    handle: int
    request_id: str
    index: int
    params: SamplingParams
    stop_ids: frozenset[int]
    prompt_tokens: int
    detokenizer: Detokenizer
    message: NewRequest  # what an engine was told of it
    prompt: Sequence[int] = ()  # where its log-probabilities are asked for
    completion_tokens: int = 0
    cached_tokens: int = 0
    queued_s: float = 0.0
    cumulative_logprob: float = 0.0
    tokens: list[int] = field(default_factory=list)  # so far: what another engine must be told
    deaths: int = 0  # of engines in a row that ran it, and died before it got any further
    since_death: int = 0  # tokens that the present engine made of it

    def again(self) -> NewRequest:
        """What another engine must be told of it: all that this one said, to go on from there."""
        self.since_death = 0
        return msgspec.structs.replace(
            self.message,
            output=as_bytes(self.tokens),
            again=True,
            suspect=self.deaths >= SUSPECT,
        )


@dataclass
class Frontend:
    """Validates requests, numbers their samples and turns the engine's tokens into outputs."""

    tokenizer: Tokenizer
    info: ModelInfo
    seed: int | None = None  # where the seeds of requests without one are drawn from
    fail: Callable[[str, InarchError], None] | None = None  # told of requests that cannot go on
    samples: dict[int, Sample] = field(default_factory=dict)
    _handles: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        self._seeds = np.random.default_rng(self.seed)

    def encode(self, prompt: str | Sequence[int]) -> list[int]:
        """Token ids of a prompt; ids are checked, text is tokenized."""
        if isinstance(prompt, str):
            return self.tokenizer.encode(prompt)
        ids = list(prompt)
        check_token_ids(ids, self.info.vocab_size, param="prompt")
        return ids

    def open(
        self,
        prompt: Sequence[int],
        params: SamplingParams,
        *,
        request_id: str | None = None,
        terms: Terms = DEFAULT_TERMS,
    ) -> list[NewRequest]:
        """Make the samples of a request. Raises InvalidRequestError."""
        params.check(self.info.vocab_size)
        if not params.encode:
            check_generates(self.info)
        max_tokens = self._max_tokens(len(prompt), params)
        request_id = request_id or uuid.uuid4().hex
        stop_ids = self._stop_ids(params)
        seed = params.seed
        if seed is None:
            seed = int(self._seeds.integers(2**63))
        ids = as_bytes(prompt)
        messages = [
            NewRequest(
                handle=next(self._handles),
                prompt=ids,
                params=params,
                max_tokens=max_tokens,
                stop_ids=stop_ids,
                seed=(seed + index * GOLDEN) % 2**64,
                namespace=terms.namespace,
                priority=terms.priority,
            )
            for index in range(params.n)
        ]
        budget = MatchingBudget()
        for index, message in enumerate(messages):
            sample = self._sample(message, request_id, index, prompt, budget)
            self.samples[message.handle] = sample
        return messages

    def _stop_ids(self, params: SamplingParams) -> list[int]:
        stop_ids = set(params.stop_token_ids)
        if not params.ignore_eos:
            stop_ids |= set(self.info.eos_token_ids) | set(self.tokenizer.eos_token_ids)
        return sorted(stop_ids)

    def _sample(
        self,
        message: NewRequest,
        request_id: str,
        index: int,
        prompt: Sequence[int],
        budget: MatchingBudget,
    ) -> Sample:
        params = message.params
        detokenizer = self.tokenizer.detokenizer(
            prompt,
            stop=params.stop,
            stop_regex=params.stop_regex,
            include_stop=params.include_stop,
            skip_special_tokens=params.skip_special_tokens,
            budget=budget,
        )
        return Sample(
            message.handle,
            request_id,
            index,
            params,
            frozenset(message.stop_ids),
            len(prompt),
            detokenizer,
            message,
            prompt if params.prompt_logprobs is not None else (),
        )

    def receive(self, news: TokenOutput) -> tuple[list[RequestOutput], list[int]]:
        """One step's tokens as outputs; those of samples that were closed are dropped.

        Also the handles of samples that the engine must be told to end, for text it cannot see.
        First tokens come first: behind a full batch they would wait for all the others to be sent.
        """
        outputs: list[RequestOutput] = []
        cut: list[int] = []
        first = news.cached
        later = (i for i in range(len(news.handles)) if i not in first)
        for index in (*first, *later):
            sample = self.samples.get(news.handles[index])
            if sample is None:
                continue
            if index in first:
                sample.cached_tokens = first[index]
                sample.queued_s = news.queued.get(index, 0.0)
            finish = news.finish.get(index)
            try:
                output = self._advance(sample, news.tokens[index], finish, _logprobs(news, index))
            except InvalidRequestError as error:  # a pattern that takes too long to match
                self._fail(sample, error)
                cut.append(sample.handle)
                continue
            if index in news.prompts:
                told = tuple(prompt_entries(news.prompts[index], sample.prompt, sample.params))
                output = msgspec.structs.replace(output, prompt_logprobs=told)
            if index in news.vectors:
                rows = np.frombuffer(news.vectors[index].rows, "<f4")
                vectors = rows.reshape(news.vectors[index].count, -1)
                output = msgspec.structs.replace(output, vectors=vectors, finish_reason="stop")
            outputs.append(output)
            if finish is None and output.finish_reason is not None:
                cut.append(sample.handle)
        return outputs, cut

    def close(self, handle: int) -> None:
        """Forget a sample; tokens that still arrive for it are dropped."""
        self.samples.pop(handle, None)

    def aborted(self, sample: Sample) -> RequestOutput:
        """The last output of a sample that somebody ended."""
        return self._output(sample, sample.detokenizer.finish(), (), (), "abort", None)

    def _max_tokens(self, prompt_tokens: int, params: SamplingParams) -> int:
        if not prompt_tokens:
            raise InvalidRequestError(
                "the prompt is empty: it needs at least one token", param="prompt"
            )
        room = self.info.max_request_tokens - prompt_tokens
        if room < (params.max_tokens != 0):
            limit = "context length"
            if self.info.max_request_tokens < self.info.context_length:
                limit = "KV memory of this server"
                if self.info.head.whole_prompts:
                    limit = "budget of a step of this server (--max-step-tokens)"
            raise InvalidRequestError(
                f"the prompt has {prompt_tokens} tokens, but the {limit} is "
                f"{self.info.max_request_tokens} tokens"
                + ("" if params.encode else " for prompt and answer together"),
                param="prompt",
                code="context_length_exceeded",
            )
        return min(room, params.max_tokens or room) if params.max_tokens != 0 else 1

    def _fail(self, sample: Sample, error: InarchError) -> None:
        self.close(sample.handle)
        if self.fail is not None:
            self.fail(sample.request_id, error)

    def _advance(
        self, sample: Sample, token: int, finish: str | None, logprobs: tuple[TokenLogprob, ...]
    ) -> RequestOutput:
        """Add a token to a sample. An eos or stop token is counted but not part of the text."""
        if sample.params.max_tokens == 0:  # the engine makes one token at least
            self.close(sample.handle)
            return self._output(sample, "", (), (), "length", None)
        sample.completion_tokens += 1
        sample.since_death += 1
        sample.tokens.append(token)
        if logprobs:
            sample.cumulative_logprob += logprobs[0].logprob
        detokenizer = sample.detokenizer
        is_stop = finish == "stop"
        if is_stop and not sample.params.include_stop:
            text = ""
        else:
            may_stop = sample.completion_tokens > sample.params.min_tokens
            text = detokenizer.push([token], check_stops=may_stop)
        if detokenizer.matched is not None:
            self.close(sample.handle)
            return self._output(sample, text, (token,), logprobs, "stop", detokenizer.matched)
        if finish is None:
            return self._output(sample, text, (token,), logprobs, None, None)
        self.close(sample.handle)
        text += detokenizer.finish()
        reason: FinishReason = "stop" if is_stop else "length"
        matched = token if is_stop else None
        return self._output(sample, text, (token,), logprobs, reason, matched)

    def _output(
        self,
        sample: Sample,
        text: str,
        tokens: tuple[int, ...],
        logprobs: tuple[TokenLogprob, ...],
        finish: FinishReason | None,
        matched: int | str | None,
    ) -> RequestOutput:
        return RequestOutput(
            sample.request_id,
            sample.index,
            text,
            tokens,
            logprobs,
            finish,
            matched,
            sample.prompt_tokens,
            sample.completion_tokens,
            sample.cached_tokens,
            sample.cumulative_logprob if sample.params.logprobs is not None else None,
            queued_s=sample.queued_s,
        )


def as_bytes(ids: Sequence[int]) -> bytes:
    """Token ids as messages carry them."""
    return np.array(ids, dtype="<i4").tobytes()


def _logprobs(news: TokenOutput, index: int) -> tuple[TokenLogprob, ...]:
    if index not in news.logprobs:
        return ()
    chosen, values, ids, wanted = news.logprobs[index]
    top = tuple(zip(ids, values, strict=True))
    return (TokenLogprob(news.tokens[index], chosen, top, tuple(wanted)),)
