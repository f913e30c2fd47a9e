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
    top_k: Tensor,
    top_p: Tensor,
    min_p: Tensor,
    uniform: Tensor,
) -> Tensor:
    """Draw one token a row by inverting the cumulative distribution at `uniform`.

    logits [S, V] float32. temperature [S] float32, 0 = greedy. top_k [S] int32, V or more = off.
    top_p, min_p [S] float32, 1 and 0 = off. uniform [S] float32 in [0, 1). Returns int64 [S].

    Tokens are ordered by falling probability, ties by rising id. Kept are the first top_k, those
    before which less than top_p of the probability lies, and those of at least min_p times the
    highest probability; then the kept are renormalised. The most likely token is always kept.
    """
    scaled = logits / torch.where(temperature > 0, temperature, 1.0).unsqueeze(1)
    ordered, ids = torch.sort(scaled, dim=-1, descending=True, stable=True)
    probs = torch.softmax(ordered, dim=-1)
    before = probs.cumsum(-1) - probs
    rank = torch.arange(probs.shape[-1], device=probs.device)
    keep = (rank < top_k.unsqueeze(1)) & (before < top_p.unsqueeze(1))
    keep &= probs >= min_p.unsqueeze(1) * probs[:, :1]
    keep[:, 0] = True
    cumulative = torch.where(keep, probs, 0.0).cumsum(-1)
    total = cumulative[:, -1:]
    choice = (cumulative <= uniform.unsqueeze(1) * total).sum(-1)
    last_kept = keep.sum(-1) - 1  # rounding may carry the draw past the end
    choice = torch.where(temperature > 0, torch.minimum(choice, last_kept), 0)
    return ids.gather(1, choice.unsqueeze(1)).squeeze(1)


@op()
def penalize(
    logits: Tensor,
    prompt: Tensor,
    counts: Tensor,
    repetition: Tensor,
    frequency: Tensor,
    presence: Tensor,
) -> Tensor:
    """Make tokens that were seen less likely.

    logits [S, V] float32; prompt [S, V] bool: is the token in the prompt; counts [S, V] int32: how
    often was it generated; repetition, frequency, presence [S] float32 (1, 0, 0 = off). Repetition
    (prompt and output; Keskar et al., 2019, arXiv:1909.05858) divides positive logits and multiplies
    negative ones; frequency and presence (output only, OpenAI's definition) are subtracted.
    """
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
def logprobs(logits: Tensor, tokens: Tensor, top: int) -> tuple[Tensor, Tensor, Tensor]:
    """Natural-log probabilities of the chosen tokens and of the `top` most likely ones.

    logits [S, V] float32, tokens [S] int64 -> chosen [S] float32, values [S, top] float32 and
    ids [S, top] int64 by falling probability.
    """
    normalised = torch.log_softmax(logits, dim=-1)
    chosen = normalised.gather(1, tokens.unsqueeze(1)).squeeze(1)
    values, ids = normalised.topk(top, dim=-1)
    return chosen, values, ids
