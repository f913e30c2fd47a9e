"""What this backend gives for each op and facet, and what it refuses, with the reasons."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from jax.sharding import Mesh

from inarch.hal.op import Kernel
from inarch.hal.ops import OPS, convolution, delta_rule, state_space
from inarch.hal.ops import sampling as sampling_ops
from inarch_tpu import experts, sampling
from inarch_tpu.attention import XlaAttention
from inarch_tpu.grouped_linear import XlaGroupedLinear
from inarch_tpu.linear import XlaLinear

SAMPLING = {name for name, op in vars(sampling_ops).items() if OPS.get(name) is op}
RECURRENT = {
    name
    for module in (convolution, delta_rule, state_space)
    for name in vars(module)
    if name in OPS
}


def kernels(mesh: Mesh, *, pallas: bool) -> Sequence[Kernel]:
    attention = functools.partial(XlaAttention, pallas=pallas)
    return [
        Kernel("attention", "xla", attention),
        Kernel("latent_attention", "xla", "inarch_tpu.latent:XlaLatentAttention"),
        Kernel("experts", "xla", functools.partial(experts.XlaExperts, mesh), experts.supports),
        Kernel("grouped_linear", "xla", XlaGroupedLinear),
        Kernel("linear", "xla", functools.partial(XlaLinear, mesh)),
        *(Kernel(name, "xla", getattr(sampling, name)) for name in sorted(SAMPLING)),
        # XLA compiles the definition of an op together with what is around it.
        *(
            Kernel(name, "xla", op.reference)
            for name, op in OPS.items()
            if name not in SAMPLING | RECURRENT
        ),
    ]
