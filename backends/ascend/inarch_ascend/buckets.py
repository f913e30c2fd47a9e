"""The shapes that decodes are padded to and captured at. Steps with prompts run as they come."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from inarch.hal.executor import StepShape
from inarch.hal.graphs import GraphShapes

# Every graph holds a task group for each layer, which the host updates before each replay: there are
# as few as padding allows. Not measured on an NPU.
DECODES = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256)
# Of a graph, beside the pool: its tasks and the workspaces of attention. Not measured on an NPU.
GRAPH_BYTES = 16 << 20


def bucket(shape: StepShape) -> StepShape:
    """The captured shape that a step is padded to; what cannot be captured is not padded."""
    if shape.max_query != 1 or shape.seqs > DECODES[-1]:
        return shape
    size = DECODES[bisect_left(DECODES, shape.seqs)]
    return StepShape(size, size, 1, captured=True)


def shapes(most: StepShape) -> Sequence[StepShape]:
    """The captured shapes of steps up to `most`, small batches first."""
    wanted = bucket(StepShape(most.seqs, most.seqs, 1)).seqs
    return [StepShape(size, size, 1, captured=True) for size in DECODES if size <= wanted]


GRAPH_SHAPES = GraphShapes(bucket, shapes, GRAPH_BYTES)
