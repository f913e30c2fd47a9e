"""How a request wants to be served, beside what it wants to be told."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from inarch.config import EngineConfig
from inarch.sampling import Terms
from inarch_server.http.body import Body

BETWEEN = "\x1f"  # the two halves of a namespace
LONGEST_NAME = 128  # characters


def checked_name(name: str) -> str:
    """A name that a client gives to its request. It stands in logs: a line break would forge a line."""
    if not 0 < len(name) <= LONGEST_NAME or not name.isprintable():
        raise ValueError(f"must have 1 to {LONGEST_NAME} characters, all of them printable")
    return name


RequestName = Annotated[
    str, AfterValidator(checked_name), Field(json_schema_extra={"maxLength": LONGEST_NAME})
]


class TermsBody(Body):
    """Fields that every endpoint knows."""

    priority: int | None = None
    cache_salt: str | None = None
    extra_key: str | None = None
    timeout: float | None = Field(default=None, strict=False)  # seconds

    def terms(self, config: EngineConfig) -> Terms:
        """Raises InvalidRequestError. The server's own limit on time is a request's longest."""
        limits = [s for s in (self.timeout, config.request_timeout) if s is not None]
        keys = [self.cache_salt or "", self.extra_key or ""]
        terms = Terms(
            priority=self.priority or 0,
            namespace=BETWEEN.join(keys) if any(keys) else "",
            timeout_s=min(limits, default=None),
        )
        terms.check()
        return terms
