"""Pictures in messages: wherever one comes from, it goes to a model as a URL.

Files and bytes become a data URL, which both OpenAI's and Anthropic's APIs can be given.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inarch.errors import InvalidRequestError

REMOTE = ("http://", "https://")
MOST_BYTES = 20 << 20  # of a file: what most servers take, and a request's body holds
# What files of the formats that models are given begin with.
BEGINNINGS = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF8": "image/gif",
    b"RIFF": "image/webp",
}


@dataclass(frozen=True)
class Picture:
    """url: http(s), which the server fetches, or data, with the whole file in it."""

    url: str

    def for_openai(self) -> dict[str, Any]:
        return {"type": "image_url", "image_url": {"url": self.url}}

    def for_anthropic(self) -> dict[str, Any]:
        if self.url.startswith(REMOTE):
            return {"type": "image", "source": {"type": "url", "url": self.url}}
        kind, _, data = self.url.removeprefix("data:").partition(";base64,")
        return {"type": "image", "source": {"type": "base64", "media_type": kind, "data": data}}


def read_picture(source: Any) -> Picture:
    """Of a path, a URL, the bytes of a file, or a picture of PIL. Raises InvalidRequestError."""
    match source:
        case Picture():
            return source
        case bytes() | bytearray() | memoryview():
            return _of_bytes(bytes(source), "bytes")
        case str() if source.startswith(REMOTE):
            return Picture(source)
        case str() if source.startswith("data:"):
            if ";base64," not in source:
                raise InvalidRequestError(
                    "a data URL of a picture is data:image/png;base64,...", param="image"
                )
            return Picture(source)
        case str() | Path():
            return _of_file(Path(source))
    if hasattr(source, "save") and hasattr(source, "mode"):
        return _of_pil(source)
    raise InvalidRequestError(
        "a picture is a path, a URL, the bytes of a file or a PIL image, not"
        f" {type(source).__name__}",
        param="image",
    )


def _of_file(path: Path) -> Picture:
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: no file has such a name
        why = getattr(error, "strerror", None) or str(error)
        raise InvalidRequestError(
            f"the picture {str(path)[:100]!r} cannot be read: {why}", param="image"
        ) from None
    return _of_bytes(data, str(path))


def _of_pil(image: Any) -> Picture:
    file = io.BytesIO()
    try:
        image.save(file, format="PNG")
    except OSError as error:
        raise InvalidRequestError(f"{error}: convert('RGB') it", param="image") from None
    return _of_bytes(file.getvalue(), "an image")


def _of_bytes(data: bytes, name: str) -> Picture:
    kind = next((kind for begun, kind in BEGINNINGS.items() if data.startswith(begun)), None)
    if kind is None or (kind == "image/webp" and data[8:12] != b"WEBP"):
        raise InvalidRequestError(
            f"{name}: no picture that models read, which are PNG, JPEG, GIF and WebP", param="image"
        )
    if len(data) > MOST_BYTES:
        raise InvalidRequestError(
            f"{name}: the picture is larger than the limit of {MOST_BYTES >> 20} MiB; make it smaller,"
            " or give the URL that it has on the web",
            param="image",
        )
    return Picture(f"data:{kind};base64,{base64.b64encode(data).decode()}")
