"""The requests for vectors, scores and classes: OpenAI's, Cohere's and Jina's, vLLM's and SGLang's."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from inarch.errors import InvalidRequestError
from inarch_server.answering.sampling_body import Unsupported
from inarch_server.answering.terms import RequestName, TermsBody
from inarch_server.http.body import Body

MOST_TEXTS = 2048  # of one request


def _cutting(value: int) -> int:
    if value < 1 and value != -1:
        raise ValueError("must be at least 1, or -1 for as many as the model takes")
    return value


class EncodingBody(TermsBody):
    model: str | None = None
    rid: RequestName | None = None
    truncate_prompt_tokens: Annotated[int, AfterValidator(_cutting)] | None = None
    lora_path: Unsupported = None

    def most(self, longest: int) -> int | None:
        """Tokens to which a text is cut; None: it is refused if it is too long."""
        if self.truncate_prompt_tokens == -1:
            return longest
        return self.truncate_prompt_tokens


class EmbeddingRequest(EncodingBody):
    """OpenAI's. `prompt_name`: one of the prompts that the model's makers put before texts."""

    input: Any  # split by prompts.split
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None
    prompt_name: str | None = None


class ClassifyRequest(EncodingBody):
    input: Any


class DocumentText(Body):
    text: str


class RerankRequest(EncodingBody):
    """Cohere's and Jina's. `instruct`: what a language model is to look for."""

    query: str
    documents: list[str | DocumentText] = Field(min_length=1, max_length=MOST_TEXTS)
    top_n: int | None = Field(default=None, ge=1)
    return_documents: bool | None = None
    instruct: str | None = Field(default=None, min_length=1)

    @property
    def texts(self) -> list[str]:
        return [one if isinstance(one, str) else one.text for one in self.documents]


class ScoreRequest(EncodingBody):
    """vLLM's, of texts in pairs; or SGLang's: how likely certain tokens come behind each item."""

    text_1: str | list[str] | None = None
    text_2: str | list[str] | None = None

    query: str | list[int] | None = None
    items: str | list[str] | list[list[int]] | None = None
    label_token_ids: list[int] | None = Field(default=None, min_length=1)
    apply_softmax: bool | None = None
    item_first: bool | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> ScoreRequest:
        pairs = [name for name in ("text_1", "text_2") if getattr(self, name) is not None]
        labels = ("query", "items", "label_token_ids")
        given = [name for name in labels if getattr(self, name) is not None]
        if len(pairs) != 2 * (not given) or len(given) not in (0, len(labels)):
            raise InvalidRequestError(
                "either text_1 and text_2 are needed, or query, items and label_token_ids",
                param="text_1",
            )
        if isinstance(self.query, list) != _holds_ids(self.items):
            raise InvalidRequestError(
                "query and items must both be texts, or both token ids", param="items"
            )
        return self


class EncodeRequest(TermsBody):
    """SGLang's: exactly one of text and input_ids; each of them one prompt, or a list of prompts."""

    text: Any = None
    input_ids: Any = None
    rid: RequestName | None = None
    dimensions: int | None = None

    image_data: Unsupported = None
    video_data: Unsupported = None
    audio_data: Unsupported = None
    lora_path: Unsupported = None

    @model_validator(mode="after")
    def _one_prompt(self) -> EncodeRequest:
        if (self.text is None) == (self.input_ids is None):
            raise InvalidRequestError("exactly one of text and input_ids is needed", param="text")
        return self


def _holds_ids(items: Any) -> bool:
    return isinstance(items, list) and bool(items) and isinstance(items[0], list)
