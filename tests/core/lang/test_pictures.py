"""Pictures are parts of a message: APIs are sent them in their form, an engine has no eyes."""

from __future__ import annotations

import base64
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest

import inarch.lang as sgl
from inarch.errors import InvalidRequestError
from inarch.lang import Runtime, State
from inarch.lang.pictures import MOST_BYTES, read_picture

from .stand_in import StandIn

pytestmark = pytest.mark.timeout(60)
URL = "https://example.org/cat.jpg"


def png() -> bytes:
    """One black pixel."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    pixels = zlib.compress(b"\0\0")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(kind, data) for kind, data in ((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b""))
    )


DATA = base64.b64encode(png()).decode()
DATA_URL = f"data:image/png;base64,{DATA}"


class PilLike:
    """What a PIL image is to us."""

    mode = "L"

    def save(self, file: Any, format: str) -> None:
        assert format == "PNG"
        file.write(png())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "dot.png"
    path.write_bytes(png())
    return path


@sgl.function
def compare(s: State, first: Any, second: Any) -> None:
    s += sgl.system("You see.")
    s += sgl.user("First: " + sgl.image(first) + sgl.image(second) + " which one?")
    s += sgl.assistant(sgl.gen("answer", max_tokens=8))


def test_openai_is_sent_data_urls_and_urls_between_the_texts(path: Path) -> None:
    with StandIn(lambda _: "The cat.") as server:
        state = compare.run(str(path), URL, backend=sgl.OpenAI("eyes", base_url=server.url))
    content = [
        {"type": "text", "text": "First: "},
        {"type": "image_url", "image_url": {"url": DATA_URL}},
        {"type": "image_url", "image_url": {"url": URL}},
        {"type": "text", "text": " which one?"},
    ]
    system, asked = server.bodies[0]["messages"]
    assert system == {"role": "system", "content": "You see."}
    assert asked == {"role": "user", "content": content}
    assert state.messages()[1]["content"] == content
    assert state["answer"] == "The cat."
    assert state.text() == "You see.First:  which one?The cat."


def test_anthropic_is_sent_base64_and_urls() -> None:
    with StandIn(lambda _: "The dot.") as server:
        backend = sgl.Anthropic("eyes", base_url=server.url)
        assert compare.run(png(), URL, backend=backend)["answer"] == "The dot."
    assert server.bodies[0]["system"] == "You see."
    (asked,) = server.bodies[0]["messages"]
    assert asked["content"] == [
        {"type": "text", "text": "First: "},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": DATA}},
        {"type": "image", "source": {"type": "url", "url": URL}},
        {"type": "text", "text": " which one?"},
    ]


def test_a_message_without_text_of_the_next_turn_has_no_pictures_of_the_last() -> None:
    @sgl.function
    def turns(s: State) -> None:
        s += sgl.user(sgl.image(URL)) + sgl.assistant(sgl.gen("a")) + sgl.user("And now?")
        forks = s.fork(2)
        forks += sgl.assistant("yes") + sgl.user(sgl.image(png()))
        forks.join("concate_and_append")

    with StandIn(lambda _: "ok") as server:
        told = turns.run(backend=sgl.OpenAI("eyes", base_url=server.url)).messages()
    shown = [message["content"] for message in told]
    picture = [{"type": "image_url", "image_url": {"url": DATA_URL}}]
    assert shown[0] == [{"type": "image_url", "image_url": {"url": URL}}]
    assert shown[1:] == ["ok", "And now?", "yes", picture, "yes", picture]


@pytest.mark.parametrize("source", [png(), bytearray(png()), PilLike(), DATA_URL])
def test_every_kind_of_source_becomes_the_same_picture(source: Any) -> None:
    assert read_picture(source).url == DATA_URL


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("/no/such/file.png", "'/no/such/file.png' cannot be read: No such file"),
        ("x\0y", "cannot be read"),
        (b"%PDF-1.7", "bytes: no picture that models read"),
        (b"RIFF1234AVI ", "no picture that models read"),
        ("data:image/png,raw", "data:image/png;base64"),
        (5, "not int"),
    ],
)
def test_what_is_no_picture_is_refused_with_the_line(source: Any, message: str) -> None:
    with (
        StandIn(lambda _: "never") as server,
        pytest.raises(sgl.ProgramError, match=rf"{message}.*test_pictures.py.*in compare"),
    ):
        compare.run(source, URL, backend=sgl.OpenAI("eyes", base_url=server.url))
    assert not server.bodies


def test_pictures_stand_in_messages() -> None:
    @sgl.function
    def plain(s: State) -> None:
        s += sgl.image(URL) + "What is it? " + sgl.gen("a")

    with pytest.raises(sgl.ProgramError, match=r"belongs in a message.*in plain"):
        plain.run(backend=sgl.OpenAI("instruct"))


def test_a_picture_that_no_request_could_hold_is_refused_without_reading_all_of_it(
    path: Path,
) -> None:
    with path.open("r+b") as file:
        file.truncate(MOST_BYTES)
        assert len(read_picture(path).url) > MOST_BYTES
        file.truncate(MOST_BYTES + 1)
    with pytest.raises(InvalidRequestError, match=r"dot.png: .* larger than the limit of 20 MiB"):
        read_picture(path)
    with pytest.raises(InvalidRequestError, match=r"bytes: .* larger than the limit"):
        read_picture(png() + bytes(MOST_BYTES))
    with pytest.raises(InvalidRequestError, match="no picture that models read"):
        read_picture("/dev/zero")


def test_an_engine_refuses_pictures_and_names_the_line(runtime: Runtime) -> None:
    (state,) = compare.run_batch([{"first": URL, "second": URL}], backend=runtime)
    error = state.error()
    assert error is not None
    assert "read no pictures yet" in str(error)
    assert error.place.function == "compare"
    assert error.place.line == compare.func.__code__.co_firstlineno + 3


def test_videos_are_refused() -> None:
    with pytest.raises(InvalidRequestError, match=r"no video is read yet \(film\.mp4\)"):
        sgl.video("film.mp4", 16)
