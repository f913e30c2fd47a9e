"""Benchmarks: the same workloads and the same figures, over HTTP or in-process.

    lengths, workload, dataset    what is asked: requests with prompts, lengths and start times
    record                        what was seen: one request's times and token counts
    report, table, plot           what it amounts to: figures and JSON, terminal, picture
    preflight, client, fleet      over HTTP to any OpenAI-compatible server, from several processes
    serve                         `inarch bench serve`: all of it in order

Nothing here imports torch or the engine: the load generator measures any server, from any machine.
"""

from __future__ import annotations

from inarch.errors import InarchError


class BenchError(InarchError):
    """A benchmark could not be run; the message says why and what to do."""
