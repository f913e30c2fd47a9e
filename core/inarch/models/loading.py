"""Builds a running decoder from a description and a checkpoint, or from random weights."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import sys
from collections.abc import Callable, Iterator

import torch

from inarch.hal.device import Device
from inarch.hal.dispatch import Dispatcher
from inarch.hal.kv import KVStore
from inarch.hal.quantized_linear import QuantizationScheme
from inarch.models.builder import Builder
from inarch.models.checkpoint import Checkpoint
from inarch.models.decoder import Decoder, build_decoder
from inarch.models.description import Description
from inarch.models.sources import Names, choose_sources
from inarch.models.weights import (
    Chosen,
    Weights,
    check_tensors,
    from_checkpoint,
    random_weights,
)

log = logging.getLogger(__name__)

LONG_LOAD = 1 << 30  # bytes from which a progress bar is worth showing


def load_decoder(
    description: Description,
    names: Names,
    checkpoint: Checkpoint | None,
    dispatcher: Dispatcher,
    store: KVStore,
    device: Device,
    dtype: torch.dtype,
    quantization: QuantizationScheme | None = None,
) -> Decoder:
    """Load every weight onto the device, one at a time, and bind every op.

    names: what the family says of the description. checkpoint: None for random weights, the same
    each time; closed in the end. store: of `kv_spec(description, dtype)`. quantization: how to store
    the weights of linear layers. Raises ModelError for an incomplete or damaged checkpoint before
    anything is loaded, UnsupportedError if a kernel lacks.
    """
    if checkpoint is None:
        parameters, fill = description.parameters(), random_weights()
    else:
        chosen = choose_sources(names, checkpoint.names())
        description = _untied_if_heads_differ(description, chosen, checkpoint)
        parameters, fill = description.parameters(), from_checkpoint(checkpoint, chosen)
        check_tensors(checkpoint, chosen, parameters)
    total = sum(p.elements for p in parameters.values()) * dtype.itemsize
    with _progress(total) as loaded:
        weights = Weights(parameters, fill, device.torch_device, dtype, loaded)
        builder = Builder(description, weights, dispatcher, store, device, quantization)
        decoder = build_decoder(description, builder)
    if checkpoint is not None:
        checkpoint.close()
    return decoder


def _untied_if_heads_differ(
    description: Description, chosen: Chosen, checkpoint: Checkpoint
) -> Description:
    """Believe a checkpoint that holds a head of its own although the config calls it tied."""
    embedding, head = chosen.get("embedding.weight", ()), chosen.get("head.weight", ())
    stored = checkpoint.names().issuperset(source.name for source in (*embedding, *head))
    if not description.tie_embeddings or not stored:
        return description
    pairs = zip(embedding, head, strict=False)
    if all(
        torch.equal(e.of(checkpoint.get(e.name)), h.of(checkpoint.get(h.name))) for e, h in pairs
    ):
        return description
    log.warning(
        "config.json ties the output head to the embedding, but %s holds a different %s: using it",
        checkpoint.folder,
        ", ".join(source.name for source in head),
    )
    return dataclasses.replace(description, tie_embeddings=False)


@contextlib.contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal's stderr while a large model loads; takes the bytes of each tensor."""
    if total < LONG_LOAD or not sys.stderr.isatty():
        yield lambda size: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

    columns = ("Loading weights", BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("weights", total=total)
        yield lambda size: bar.advance(task, size)
