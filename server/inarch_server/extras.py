"""Packages that only some options need: asked for before anything is started."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from inarch.errors import ConfigError

if TYPE_CHECKING:
    from inarch.config import EngineConfig

OTLP = ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http.trace_exporter")


def check_extras(config: EngineConfig) -> None:
    """Raise ConfigError if what the options ask for is not installed."""
    for module in OTLP if config.otlp_endpoint is not None else ():
        try:
            import_module(module)
        except ImportError as error:
            raise ConfigError(
                f"--otlp-endpoint: OpenTelemetry is not installed ({error});"
                " pip install 'inarch[otel]'"
            ) from error
