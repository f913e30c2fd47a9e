"""From canonical parameters to the tensors of a checkpoint, by two small tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from inarch.models.description import Description, Layer


def names(
    description: Description,
    model: Mapping[str, str],
    layers: str,
    inner: Callable[[Layer], Mapping[str, tuple[str, ...]]],
) -> dict[str, tuple[str, ...]]:
    """For every parameter the checkpoint's tensors, concatenated along dim 0.

    model: modules outside of the layers. layers: what comes before a layer's number. inner: a
    layer's modules, or single parameters of one, and the checkpoint's for each. The head is named even
    where it is tied: some checkpoints keep a copy of it.
    """
    found: dict[str, tuple[str, ...]] = {"head.weight": (f"{model['head']}.weight",)}
    for parameter in description.parameters():
        if not parameter.startswith("layers."):
            module, kind = parameter.rsplit(".", 1)
            found[parameter] = (f"{model[module]}.{kind}",)
            continue
        _, index, name = parameter.split(".", 2)
        module, kind = name.rsplit(".", 1)
        table = inner(description.layers[int(index)])
        sources = table.get(name) or tuple(f"{source}.{kind}" for source in table[module])
        found[parameter] = tuple(f"{layers}.{index}.{source}" for source in sources)
    return found
