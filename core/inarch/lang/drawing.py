"""A picture of a program's run: a lane for each state, a bar for each call, one colour a kind of token.

Of a call's bar the first part is as long as its share of cached prompt tokens, the second of those
that were computed, the third of those that were written.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from inarch.lang.events import Call
from inarch.lang.track import Track

WIDTH, LABEL, LANE, BAR, TOP = 960, 90, 30, 18, 46  # pixels
COLOURS = {
    "cached": "#8fb8de",
    "computed": "#2f6db0",
    "written": "#e08e3c",
    "select": "#7a9e59",
    "fork": "#b9b2c4",
}


def drawn(track: Track) -> str:
    """SVG text, readable on light and dark ground."""
    lanes = list(_lanes(track, "", 0))
    calls = [call for _, _, own in lanes for call in own]
    begun = min((call.begun_s for call in calls), default=0.0)
    took = max((call.ended_s for call in calls), default=begun) - begun or 1e-9
    height = TOP + LANE * len(lanes) + 10
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}"'
        f' viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="11">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        *_legend(took),
    ]
    for row, (name, depth, own) in enumerate(lanes):
        y = TOP + LANE * row
        parts.append(
            f'<text x="{8 + 10 * depth}" y="{y + 13}" fill="#333333">{escape(name)}</text>'
        )
        for call in own:
            parts += _bar(call, begun, took, y)
    return "\n".join([*parts, "</svg>\n"])


def _lanes(track: Track, name: str, depth: int) -> Iterator[tuple[str, int, list[Call]]]:
    yield name or "program", depth, track.calls
    for number, fork in enumerate(track.forks):
        yield from _lanes(fork, f"{name}.{number}" if name else str(number), depth + 1)


def _legend(took_s: float) -> Iterator[str]:
    yield f'<text x="8" y="18" fill="#333333">{took_s * 1000:.0f} ms</text>'
    for column, (kind, colour) in enumerate(COLOURS.items()):
        x = LABEL + 110 * column
        yield f'<rect x="{x}" y="9" width="12" height="12" fill="{colour}"/>'
        yield f'<text x="{x + 17}" y="19" fill="#333333">{kind}</text>'


def _bar(call: Call, begun_s: float, took_s: float, y: int) -> Iterator[str]:
    scale = (WIDTH - LABEL - 10) / took_s
    x, width = LABEL + (call.begun_s - begun_s) * scale, (call.ended_s - call.begun_s) * scale
    yield f"<g><title>{escape(_title(call))}</title>"
    shares = _shares(call)
    for kind, tokens in shares:
        part = max(width, 2) * tokens / sum(count for _, count in shares)
        yield f'<rect x="{x:.1f}" y="{y}" width="{part:.1f}" height="{BAR}" fill="{COLOURS[kind]}"/>'
        x += part
    if width > 6 * len(call.name):
        label = x - width / 2
        yield f'<text x="{label:.1f}" y="{y + 13}" text-anchor="middle">{escape(call.name)}</text>'
    yield "</g>"


def _shares(call: Call) -> list[tuple[str, int]]:
    if call.kind != "gen":
        return [(call.kind, 1)]
    computed = call.prompt_tokens - call.cached_tokens
    counts = {"cached": call.cached_tokens, "computed": computed, "written": call.completion_tokens}
    return [(kind, count) for kind, count in counts.items() if count > 0] or [("written", 1)]


def _title(call: Call) -> str:
    took = f"{call.kind} {call.name} {(call.ended_s - call.begun_s) * 1000:.1f} ms"
    if call.kind != "gen":
        return took
    return (
        f"{took}: {call.cached_tokens} prompt tokens cached,"
        f" {call.prompt_tokens - call.cached_tokens} computed, {call.completion_tokens} written"
    )
