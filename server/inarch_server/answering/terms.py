"""How a request wants to be served, beside what it wants to be told."""

from __future__ import annotations

from pydantic import Field

from inarch.config import EngineConfig
from inarch.sampling import Terms
from inarch_server.http.body import Body

BETWEEN = "\x1f"  # the two halves of a namespace


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
