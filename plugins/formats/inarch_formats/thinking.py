"""Reasoning between two markers, as in <think>reasoning</think>answer.

Some models write the first marker themselves, for some the chat template puts it at the end of the
prompt, and a template that was told not to let the model think closes the reasoning there as well.
"""

from __future__ import annotations

from dataclasses import dataclass

from inarch.parsing import Content, Parser, Reasoning, Template
from inarch_formats.reader import GeneratorParser, Reader, Steps, markers


@dataclass(frozen=True)
class Thinking:
    """A model reasons at the beginning of its answer, or not at all.

    families: beginnings of config.json's model_type; () recognises any template with `end` in it.
    leave: markers that end reasoning too, but are left to whoever reads the content.
    """

    name: str
    begin: str = "<think>"
    end: str = "</think>"
    families: tuple[str, ...] = ()
    leave: tuple[str, ...] = ()
    special: bool = True

    def used_by(self, template: Template) -> bool:
        known = not self.families or template.model_type.startswith(self.families)
        return known and self.end in template.chat_template

    def parser(self, prompt_end: str) -> Parser:
        return GeneratorParser(lambda reader: self._read(reader, prompt_end.rstrip()))

    def _read(self, reader: Reader, prompt_end: str) -> Steps[None]:
        begun = prompt_end.endswith(self.begin)
        if not begun and not prompt_end.endswith(self.end):
            begun = yield from self._begins(reader)
        if begun:
            stops = markers(self.end, *self.leave)
            found = yield from reader.text(Reasoning, stops, begun=True)
            if found == self.end:
                yield from _skip_spaces(reader)
            elif found is not None:
                reader.rest = found + reader.rest
        while True:
            if reader.rest:
                reader.emit(Content(reader.rest))
                reader.rest = ""
            if reader.ended:
                return
            yield

    def _begins(self, reader: Reader) -> Steps[bool]:
        """Whether the answer begins with the marker; consumes it if so, and nothing if not."""
        while True:
            text = reader.rest.lstrip()
            if text.startswith(self.begin):
                reader.rest = text[len(self.begin) :]
                return True
            if reader.ended or not self.begin.startswith(text):
                return False
            yield


def _skip_spaces(reader: Reader) -> Steps[None]:
    while not (rest := reader.rest.lstrip()) and not reader.ended:
        reader.rest = ""
        yield
    reader.rest = rest


THINKING = (
    Thinking("kimi", "◁think▷", "◁/think▷"),
    Thinking("mistral", "[THINK]", "[/THINK]"),
    Thinking("kimi_k2", families=("kimi_k2",), leave=("<|tool_calls_section_begin|>",)),
    Thinking("deepseek_r1", families=("deepseek",)),
    Thinking("qwen3", families=("qwen",)),
    Thinking("glm45", families=("glm",)),
    Thinking("minimax_m2", families=("minimax",)),
    Thinking("think"),
)
