"""A trace of what the engine process and its device do, to be read in Perfetto or chrome://tracing."""

from __future__ import annotations

import logging
import os

log = logging.getLogger("inarch.engine")


class Profile:
    """torch's profiler, running from when this is made; what it costs is paid until `finish`."""

    def __init__(self, path: str, steps: int | None) -> None:
        """path: of the trace to write, .json or .json.gz; steps: how many to record at most."""
        from torch.profiler import profile, supported_activities

        self.path = path
        self._left = steps
        self._profiler = profile(activities=supported_activities())  # type: ignore[no-untyped-call]
        self._profiler.start()

    def stepped(self) -> bool:
        """Count a step; whether that was the last one wanted."""
        if self._left is not None:
            self._left -= 1
        return self._left is not None and self._left <= 0

    def finish(self) -> str:
        """Write the trace; why that was not possible, or ""."""
        self._profiler.stop()
        unfinished = f"{os.path.dirname(self.path)}/.{os.path.basename(self.path)}"
        try:  # whoever waits for the file must not read half of it
            self._profiler.export_chrome_trace(unfinished)
            os.replace(unfinished, self.path)
        except (OSError, RuntimeError) as error:
            log.error("the profile could not be written to %s: %s", self.path, error)
            return f"the trace could not be written to {self.path}: {error}"
        log.info("wrote a profile to %s", self.path)
        return ""
