"""Every error a user can meet. Each message says what happened, the value, the limit, and the cure.

InarchError
  ConfigError            an option or configuration file is wrong
  PluginError            a plugin that was asked for by name cannot be used
  BackendError           no backend, or not the one asked for, can run here
  UnsupportedError       the chosen backend refuses what the model needs, with its reasons
  ModelError             a checkpoint is missing, malformed or of an unknown architecture
  OutOfMemoryError       the memory given cannot hold what was asked for
  InvalidRequestError    a request breaks a rule of the API; answered with a 4xx status
  EngineDeadError        the engine process has gone
"""

from __future__ import annotations


class InarchError(Exception):
    """Base of all errors raised on purpose: the message is meant for the user."""


class ConfigError(InarchError):
    """An option, environment variable or configuration file is wrong."""


class PluginError(InarchError):
    """A plugin that the user named did not load."""


class BackendError(InarchError):
    """No installed backend, or not the one that was named, can run on this machine."""


class UnsupportedError(InarchError):
    """Nothing, not even the reference, can do what the model needs; carries the reasons."""


class ModelError(InarchError):
    """A model folder or checkpoint cannot be loaded."""


class OutOfMemoryError(InarchError):
    """The memory that is there, or was given, is too small."""


class InvalidRequestError(InarchError):
    """A request breaks a rule of the API.

    `param` names the offending field, `status` is the HTTP status (400, 404, 413 ...) and `code` the
    machine-readable reason of OpenAI's error bodies.
    """

    def __init__(
        self, message: str, *, param: str | None = None, status: int = 400, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.param, self.status, self.code = param, status, code


class EngineDeadError(InarchError):
    """The engine process has ended; requests in flight cannot be finished."""
