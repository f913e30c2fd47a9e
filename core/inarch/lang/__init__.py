"""The frontend language: programs of generation calls.

    import inarch.lang as sgl

    @sgl.function
    def capital(s, country):
        s += sgl.user(f"What is the capital of {country}?")
        s += sgl.assistant(sgl.gen("answer", max_tokens=16))

    with sgl.Runtime() as runtime:
        sgl.set_default_backend(runtime)
        print(capital.run(country="France")["answer"])

The words are SGLang's, whose programs run unchanged: Zheng et al., 2023, arXiv:2312.07104.
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
    system,
    system_begin,
    system_end,
    user,
    user_begin,
    user_end,
)
from inarch.lang.choices import (
    ChoicesMethod,
    greedy_token_selection,
    token_length_normalized,
    unconditional_likelihood_normalized,
)
from inarch.lang.errors import ProgramError
from inarch.lang.executors.engine import Runtime
from inarch.lang.executors.http import OpenAI, RuntimeEndpoint
from inarch.lang.program import Program, function, set_default_backend
from inarch.lang.state import Forks, State

__all__ = [
    "ChoicesMethod",
    "Forks",
    "InarchError",
    "OpenAI",
    "Program",
    "ProgramError",
    "Runtime",
    "RuntimeEndpoint",
    "State",
    "assistant",
    "assistant_begin",
    "assistant_end",
    "function",
    "gen",
    "gen_int",
    "gen_string",
    "greedy_token_selection",
    "image",
    "select",
    "set_default_backend",
    "system",
    "system_begin",
    "system_end",
    "token_length_normalized",
    "unconditional_likelihood_normalized",
    "user",
    "user_begin",
    "user_end",
]
