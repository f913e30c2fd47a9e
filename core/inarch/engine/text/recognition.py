"""Which formats of calls and reasoning the served model uses: by its template, or as configured."""

from __future__ import annotations

import json
from pathlib import Path

from inarch.config import EngineConfig
from inarch.engine.text.tokenizer import Tokenizer
from inarch.formats import Formats, choose_formats
from inarch.parsing import Template
from inarch.plugins import load_plugins


def recognise_formats(config: EngineConfig, tokenizer: Tokenizer) -> Formats:
    """Raises ConfigError for a format that nobody knows. `config.model` is a folder."""
    path = Path(str(config.model), "config.json")
    model_type = json.loads(path.read_bytes()).get("model_type", "")
    template = Template(model_type, tokenizer.chat_template.source, tokenizer.special_texts)
    return choose_formats(
        load_plugins(),
        template,
        tool_call_parser=config.tool_call_parser,
        reasoning_parser=config.reasoning_parser,
    )
