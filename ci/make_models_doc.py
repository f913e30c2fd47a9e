"""Write the tables of docs/models.md by running every small model of the tests against transformers.

    python ci/make_models_doc.py [--check]

--check runs no model and writes nothing: it fails if anything but the measured errors and the version
of transformers would be written differently.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
import transformers  # noqa: E402
from tests.core.engine.conftest import save_tokenizer  # noqa: E402
from tests.core.models import oracle  # noqa: E402
from tests.core.models.fallback import conftest as fallback  # noqa: E402
from tests.core.models.zoo import MODELS  # noqa: E402
from tests.core.models.zoo.encoders import CLASSIFIERS, EMBEDDERS  # noqa: E402
from tests.core.models.zoo.foreign import FOREIGN  # noqa: E402

from inarch.config import EngineConfig  # noqa: E402
from inarch.engine.engine import Engine  # noqa: E402
from inarch.models.checkpoint import Checkpoint  # noqa: E402
from inarch.models.decoder_blueprint import decoder_blueprint  # noqa: E402
from inarch.models.description import Description, Rotary  # noqa: E402
from inarch.models.fallback.trace import Trace  # noqa: E402
from inarch.models.family import built_in_families, find_family  # noqa: E402
from inarch.models.implementation import find_blueprint  # noqa: E402
from inarch.models.survey import found_in, spaced  # noqa: E402

PAGE = ROOT / "docs" / "models.md"
CHUNKS = (1, 3, 17, 1, 29, 9, *[1] * 8)  # tokens of a prompt in each step
LIMIT = 3e-4  # that no logit may be off by
# What a reader looks for in a description: attributes of its parts that are set.
FEATURES = {
    "window": "windows",
    "chunk": "chunks",
    "sinks": "sinks",
    "softcap": "soft caps",
    "logit_softcap": "soft-capped logits",
    "qk_norm": "normed q and k",
    "parallel": "parallel halves",
    "mixer_post_norm": "post-norms",
    "out_gate": "gated attention",
    "shared": "shared experts",
    "tie_embeddings": "tied head",
}
KEPT = {"GroupedQueryAttention": "K and V", "LatentAttention": "latents"}  # others: states


@dataclass(frozen=True)
class Seen:
    """What one small model told."""

    family: str
    description: Description
    error: float | None


def families_table(measured: bool) -> str:
    lines = [
        f"Verified against transformers {transformers.__version__}:",
        "",
        "| family | architectures | made of | keeps | features | models | error |",
        "|---|---|---|---|---|---|---|",
    ]
    seen = [_see(name, measured) for name in MODELS]
    for family in sorted(built_in_families(), key=lambda family: family.name):
        own = [model for model in seen if model.family == family.name]
        if not own and family.describe({}).pooled is not None:
            continue  # in a table of their own
        described = [model.description for model in own]
        names = ", ".join(f"`{name}`" for name in family.architectures)
        errors = [model.error for model in own if model.error is not None]
        lines.append(
            f"| {family.name} | {names} | {_made_of(described)} | {_kept(described)} | "
            f"{_features(described)} | {len(own)} | {_told(max(errors, default=None))} |"
        )
    return "\n".join(lines)


def _see(name: str, measured: bool) -> Seen:
    with tempfile.TemporaryDirectory() as folder, _quiet():
        saved = oracle.make(name, Path(folder))
        config = Checkpoint(folder).config
        family = find_family(config)
        error = _worst(name, saved, oracle.load(saved.folder)) if measured else None
        return Seen(family.name, family.describe(config), error)


def encoders_table(measured: bool) -> str:
    lines = ["| architecture | gives | features | error |", "|---|---|---|---|"]
    examples = [*EMBEDDERS.items(), *CLASSIFIERS.items()]
    for name, example in sorted(examples, key=lambda item: item[1].architecture):
        with tempfile.TemporaryDirectory() as folder, _quiet():
            model = example.model()
            oracle.randomize(model)
            model.save_pretrained(folder)
            checkpoint = Checkpoint(folder)
            description = decoder_blueprint(checkpoint, find_family(checkpoint.config)).description
            error = _worst_vector(name, model, Path(folder)) if measured else None
        features = [] if description.causal else ["attention to both sides"]
        told = ", ".join([*features, *filter(None, [_features([description])])])
        assert description.pooled is not None
        labels, each = description.pooled.labels, description.pooled.pooling.kind == "each"
        gives = "scores of each token" if each else "scores of labels" if labels else "embeddings"
        lines.append(f"| `{example.architecture}` | {gives} | {told} | {_told(error)} |")
    return "\n".join(lines)


@torch.inference_mode()
def _worst_vector(name: str, model: Any, folder: Path) -> float:
    """The largest difference of a number, of prompts in one batch and, where that can be, in chunks."""
    save_tokenizer(folder)
    config = EngineConfig(
        model=str(folder), backend="reference", dtype="float32", max_step_tokens=72, kv_tokens=2048
    )
    prompts = [random.Random(name).choices(range(3, 101), k=length) for length in (70, 3, 40, 17)]
    worst = 0.0
    with Engine(config) as engine:
        for prompt, found in zip(prompts, engine.encode(prompts), strict=True):
            output = model(torch.tensor([prompt]))
            if engine.info.head.labels:
                expected = output.logits[0]
            else:
                at = 0 if "bert" in name else -1
                expected = torch.nn.functional.normalize(output.last_hidden_state[0, at], dim=0)
            worst = max(worst, float(abs(expected.numpy() - found.vector).max()))
    print(f"{name:28} {worst:.1e}", flush=True)
    if not worst <= LIMIT:
        raise SystemExit(f"{name} is off by {worst:.1e}: no number may be by more than {LIMIT:g}")
    return worst


def foreign_table(measured: bool) -> str:
    lines = ["| architecture | asks of attention | error |", "|---|---|---|"]
    for name, example in sorted(FOREIGN.items(), key=lambda item: item[1].architecture):
        with tempfile.TemporaryDirectory() as folder, _quiet():
            saved = fallback.save(example.model(), Path(folder))
            blueprint = find_blueprint(Checkpoint(folder), (), model_impl="transformers")
            asked = _asked(blueprint.trace)  # type: ignore[attr-defined]
            paged = fallback.load(saved.folder, page_tokens=4) if measured else None
            error = None if paged is None else _worst(name, saved, paged)
        lines.append(f"| `{example.architecture}` | {asked} | {_told(error)} |")
    return "\n".join(lines)


def _asked(trace: Trace) -> str:
    told = {
        "windows": any(spec.window for spec in trace.specs),
        "soft caps": any(spec.softcap for spec in trace.specs),
        "sinks": any(spec.sinks for spec in trace.specs),
        "keys longer than values": any(spec.key_dim > spec.value_dim for spec in trace.specs),
        "one KV head": any(spec.kv_heads == 1 for spec in trace.specs),
        "more calls than layers": len(trace.specs) > trace.layers,
    }
    return ", ".join(text for text, true in told.items() if true)


def _made_of(described: Sequence[Description]) -> str:
    kinds = [
        spaced(type(half).__name__)
        for description in described
        for layer in description.layers
        for half in (layer.mixer, layer.feed_forward)
        if half is not None
    ]
    return "; ".join(dict.fromkeys(kinds))


def _kept(described: Sequence[Description]) -> str:
    mixers = [
        mixer
        for description in described
        for layer in description.layers
        for mixer in _mixers(layer.mixer)
    ]
    return ", ".join(dict.fromkeys(KEPT.get(type(mixer).__name__, "states") for mixer in mixers))


def _mixers(mixer: Any) -> Iterator[Any]:
    branches = getattr(mixer, "branches", None)
    if branches is not None:
        for branch in branches:
            yield from _mixers(branch.mixer)
    elif mixer is not None:
        yield mixer


def _features(described: Sequence[Description]) -> str:
    parts = [part for description in described for part in found_in(description, object)]
    told = [
        text
        for name, text in FEATURES.items()
        if any(getattr(part, name, None) not in (None, False) for part in parts)
    ]
    scalings = {
        type(part.scaling).__name__.removesuffix("Scaling").removesuffix("Rope").lower()
        for part in parts
        if isinstance(part, Rotary) and part.scaling is not None
    }
    return ", ".join([*told, *(f"{kind} rope" for kind in sorted(scalings))])


def _worst(name: str, saved: oracle.Saved, paged: Any) -> float:
    """The largest difference of a logit: a prompt in chunks beside a whole one, then decodes."""
    vocab_size, length = 101, sum(CHUNKS)
    prompt = random.Random(name).choices(range(3, vocab_size), k=length)
    expected, end, worst = saved.logits(prompt), 0, 0.0
    for step, size in enumerate(CHUNKS):
        beside = {5: prompt} if step == 2 else {}
        found = paged.step({3: prompt[end : end + size], **beside})
        end += size
        wanted = {3: expected[end - 1], 5: expected[-1]}
        worst = max(worst, *(float((found[row] - wanted[row]).abs().max()) for row in found))
    print(f"{name:28} {worst:.1e}", flush=True)
    if not worst <= LIMIT:
        raise SystemExit(f"{name} is off by {worst:.1e}: no logit may be by more than {LIMIT:g}")
    return worst


def _told(error: float | None) -> str:
    return "not run" if error is None else f"{error:.0e}"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the bars that transformers draws for each of many small files."""
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    yield


def page(*, measured: bool) -> str:
    text = PAGE.read_text()
    for section, table in (
        ("families", families_table(measured)),
        ("encoders", encoders_table(measured)),
        ("foreign", foreign_table(measured)),
    ):
        begin, end = (
            f"<!-- {section}: written by ci/make_models_doc.py -->",
            f"<!-- end of {section} -->",
        )
        before, rest = text.split(begin)
        text = f"{before}{begin}\n{table}\n{end}{rest.split(end)[1]}"
    return text


def static_part(text: str) -> str:
    """A page without what only a run can tell."""
    text = re.sub(r"transformers \d[\w.]*", "transformers", text)
    return re.sub(r"\| (not run|\d(\.\d)?e-\d\d) \|\n", "| |\n", text)


def main(arguments: Iterable[str]) -> int:
    torch.set_num_threads(1)
    if "--check" not in arguments:
        PAGE.write_text(page(measured=True))
        return 0
    if static_part(PAGE.read_text()) == static_part(page(measured=False)):
        return 0
    print(f"{PAGE} is out of date: run python ci/make_models_doc.py")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
