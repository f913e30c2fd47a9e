"""From logits to token ids, a whole batch at once. Letters in shapes: S sequences, V vocabulary.

Randomness comes in as one uniform number per row, drawn by the core from (seed, position), so that
an answer does not depend on the backend, on its neighbours in the batch or on a restart.
"""

from __future__ import annotations

import torch
from torch import Tensor

from inarch.hal.op import Residency, op


@op()
def greedy(logits: Tensor) -> Tensor:
    """The most likely token of each row: logits [S, V] -> int64 [S]; the lowest id wins a tie."""
    return logits.argmax(dim=-1)


@op()
def sample(
    logits: Tensor,
    temperature: Tensor,
    uniform: Tensor,
    top_k: Tensor | None = None,
    top_p: Tensor | None = None,
    min_p: Tensor | None = None,
) -> Tensor:
    """Draw one token a row by inverting the cumulative distribution at `uniform`.

    logits [S, V] float32. temperature [S] float32, 0 = greedy. uniform [S] float32 in [0, 1).
    top_k [S] int32, V or more = off; top_p, min_p [S] float32, 1 and 0 = off; None where no row of
    the batch has one. Returns int64 [S].

    Kept are, in order of falling probability with ties by rising id, the first top_k tokens, those
    before which less than top_p of the probability lies, and those of at least min_p times the
    highest probability; the most likely one always. Among the kept, whose probabilities are
    renormalised, the draw goes by rising id: without filters nothing need be sorted.
    """
    probs = torch.softmax(logits / torch.where(temperature > 0, temperature, 1.0)[:, None], dim=-1)
    if top_k is not None or top_p is not None or min_p is not None:
        probs = _filtered(probs, top_k, top_p, min_p)
    cumulative = probs.cumsum(-1, dtype=torch.float64)
    total = cumulative[:, -1:]
    drawn = (cumulative <= uniform[:, None] * total).sum(-1)
    last_kept = (cumulative < total).sum(-1)  # rounding may carry the draw past the end
    return torch.where(temperature > 0, torch.minimum(drawn, last_kept), logits.argmax(-1))


def _filtered(
    probs: Tensor, top_k: Tensor | None, top_p: Tensor | None, min_p: Tensor | None
) -> Tensor:
    """probs [S, V] with 0 for what the filters of `sample` cut."""
    ordered, ids = torch.sort(probs, dim=-1, descending=True, stable=True)
    keep = torch.ones_like(ordered, dtype=torch.bool)
    if top_k is not None:
        keep &= torch.arange(probs.shape[-1], device=probs.device) < top_k[:, None]
    if top_p is not None:
        before = ordered.cumsum(-1) - ordered
        keep &= (before < top_p[:, None]) | (top_p >= 1)[:, None]
    if min_p is not None:
        keep &= ordered >= min_p[:, None] * ordered[:, :1]
    keep[:, 0] = True
    return probs * torch.zeros_like(keep).scatter(1, ids, keep)


@op()
def penalize(
    logits: Tensor,
    rows: Tensor,
    prompt: Tensor,
    counts: Tensor,
    repetition: Tensor,
    frequency: Tensor,
    presence: Tensor,
) -> Tensor:
    """Make tokens that were seen less likely.

    logits [S, V] float32, dead afterwards. prompt [R, V] bool: is the token in the prompt; counts
    [R, V] int32: how often was it generated; rows [S] int64: the row of each sequence in the two.
    repetition, frequency, presence [S] float32 (1, 0, 0 = off). Repetition (prompt and output;
    Keskar et al., 2019, arXiv:1909.05858) divides positive logits and multiplies negative ones;
    frequency and presence (output only, OpenAI's definition) are subtracted.
    """
    prompt, counts = prompt[rows], counts[rows]
    seen = prompt | (counts > 0)
    factor = repetition.unsqueeze(1)
    logits = torch.where(seen, torch.where(logits > 0, logits / factor, logits * factor), logits)
    logits = logits - frequency.unsqueeze(1) * counts
    return logits - presence.unsqueeze(1) * (counts > 0)


@op(residency=Residency.STATE)
def count_tokens(counts: Tensor, rows: Tensor, tokens: Tensor) -> Tensor:
    """Add one to counts[rows[i], tokens[i]] for every i, in place; returns counts.

    counts [R, V] int32; rows, tokens [S] int64. A row may occur more than once.
    """
    one = torch.ones((), dtype=counts.dtype, device=counts.device)
    return counts.index_put_((rows, tokens), one, accumulate=True)


@op()
def add_bias(logits: Tensor, rows: Tensor, tokens: Tensor, values: Tensor) -> Tensor:
    """Add values[i] to logits[rows[i], tokens[i]]: rows, tokens [N] int64, values [N] float32.

    A value of -inf forbids the token. Logits are dead afterwards.
    """
    return logits.index_put((rows, tokens), values, accumulate=True)


@op()
def apply_token_mask(logits: Tensor, bitmask: Tensor, rows: Tensor) -> Tensor:
    """Forbid tokens: logits [S, V] become -inf where the bitmask has a 0. Logits are dead afterwards.

    bitmask [N, ceil(V / 32)] int32: bit i % 32 of word i // 32 allows token i. rows [N] int64: the
    row of logits that each row of the bitmask is for, none twice; the others stay as they are.
    """
    bits = torch.arange(32, dtype=torch.int32, device=logits.device)
    allowed = (bitmask[:, :, None] >> bits & 1).flatten(1)[:, : logits.shape[1]].bool()
    return logits.index_copy(0, rows, logits[rows].masked_fill(~allowed, -torch.inf))


@op()
def logprobs(logits: Tensor, tokens: Tensor, top: int) -> tuple[Tensor, Tensor, Tensor]:
    """Natural-log probabilities of the chosen tokens and of the `top` most likely ones.

    logits [S, V] float32, tokens [S] int64 -> chosen [S] float32, values [S, top] float32 and
    ids [S, top] int64 by falling probability.
    """
    normalised = torch.log_softmax(logits, dim=-1)
    chosen = normalised.gather(1, tokens.unsqueeze(1)).squeeze(1)
    values, ids = normalised.topk(top, dim=-1)
    return chosen, values, ids
