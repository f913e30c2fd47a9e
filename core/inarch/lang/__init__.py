"""The frontend language: programs of generation calls.

    import inarch.lang as sgl

    @sgl.function
    def capital(s, country):
        s += sgl.user(f"What is the capital of {country}?")
        s += sgl.assistant(sgl.gen("answer", max_tokens=16))

    with sgl.Runtime() as runtime:
        sgl.set_default_backend(runtime)
        print(capital.run(country="France")["answer"])

The words are SGLang's (Zheng et al., 2023, arXiv:2312.07104);
docs/frontend_language.md says what is left out.
"""

from inarch.errors import InarchError
from inarch.lang.api import (
    assistant,
    assistant_begin,
    assistant_end,
    gen,
    gen_int,
    gen_string,
    image,
    select,
    separate_reasoning,
    system,
    system_begin,
    system_end,
    user,
    user_begin,
    user_end,
    video,
)
from inarch.lang.backend import flush_cache, get_server_info, set_default_backend
from inarch.lang.choices import (
    ChoicesMethod,
    greedy_token_selection,
    token_length_normalized,
    unconditional_likelihood_normalized,
)
from inarch.lang.errors import ProgramError
from inarch.lang.executors.anthropic import Anthropic
from inarch.lang.executors.endpoint import RuntimeEndpoint
from inarch.lang.executors.engine import Runtime
from inarch.lang.executors.openai import OpenAI
from inarch.lang.forks import Forks
from inarch.lang.offline import Engine
from inarch.lang.program import Program, function
from inarch.lang.state import State
from inarch.lang.tools import Tool
from inarch.version import __version__

__all__ = [
    "Anthropic",
    "ChoicesMethod",
    "Engine",
    "Forks",
    "InarchError",
    "OpenAI",
    "Program",
    "ProgramError",
    "Runtime",
    "RuntimeEndpoint",
    "State",
    "Tool",
    "__version__",
    "assistant",
    "assistant_begin",
    "assistant_end",
    "flush_cache",
    "function",
    "gen",
    "gen_int",
    "gen_string",
    "get_server_info",
    "greedy_token_selection",
    "image",
    "select",
    "separate_reasoning",
    "set_default_backend",
    "system",
    "system_begin",
    "system_end",
    "token_length_normalized",
    "unconditional_likelihood_normalized",
    "user",
    "user_begin",
    "user_end",
    "video",
]
