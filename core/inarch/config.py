"""One frozen, validated configuration.

The command line, the environment (INARCH_*), `--config file.yaml`, the Python API and the table in
docs/configuration.md are all generated from the fields below: an option is written once.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from inarch.errors import ConfigError

QUANTIZATION_GROUPS = (32, 64, 128)


def option(
    default: Any,
    help: str,
    group: str,
    *,
    metavar: str | None = None,
    minimum: float | None = None,
    maximum: float | None = None,
) -> Any:
    """A configuration field with what the command line and the docs say about it."""
    metadata = {"help": help, "group": group, "metavar": metavar, "min": minimum, "max": maximum}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """All options of the engine and its server. None means: measured or taken from the model."""

    # ---- Model ----
    model: str | None = option(
        None,
        "Hugging Face folder or hub id, or the name of a bundled model; the bundled one by default.",
        "Model",
        metavar="MODEL",
    )
    served_model_name: str | None = option(
        None, "Name under which the API lists the model; MODEL by default.", "Model"
    )
    revision: str | None = option(None, "Branch, tag or commit of a hub model.", "Model")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = option(
        "auto", "Dtype to compute in; auto: what the backend runs best for the checkpoint.", "Model"
    )
    quantization: Literal["none", "int8", "int4"] = option(
        "none",
        "Store the weights of linear layers and experts in 8 or 4 bits, quantized while they are "
        "loaded: less memory and faster decoding on a CPU, at some loss of accuracy.",
        "Model",
    )
    quantization_group: int = option(
        32,
        "Inputs that share a scale under --quantization: 32, 64 or 128. Fewer: more accurate, larger.",
        "Model",
    )
    load_format: Literal["auto", "safetensors", "dummy"] = option(
        "auto", "Where weights come from; dummy: random ones from the config alone.", "Model"
    )
    model_impl: Literal["auto", "inarch", "transformers"] = option(
        "auto",
        "Whose code runs the model; auto: ours where a model family describes it, else that of "
        "transformers, over our pages.",
        "Model",
    )
    trust_remote_code: bool = option(
        False, "Run Python code that comes with the model, with all your rights.", "Model"
    )
    context_length: int | None = option(
        None,
        "Most tokens of prompt and answer together; the model's own by default.",
        "Model",
        minimum=1,
    )
    chat_template: str | None = option(
        None, "File with a Jinja chat template to use instead of the model's.", "Model"
    )

    # ---- Hardware ----
    backend: str | None = option(
        None, "Backend to run on; by default the best one that is really there.", "Hardware"
    )
    device: int = option(0, "Number of the device to open.", "Hardware", minimum=0)
    kernels: dict[str, str] = option(
        {},
        "Kernel to use for an op, for debugging; '*' is every op.",
        "Hardware",
        metavar="OP=NAME",
    )
    strict: bool = option(
        False, "Refuse to start if any op would run on the plain reference.", "Hardware"
    )

    # ---- Memory and scheduling ----
    memory_share: float | None = option(
        None,
        "Share of the device's memory that the engine may use; by default 0.9, on a CPU 0.5.",
        "Memory and scheduling",
        minimum=0.01,
        maximum=1.0,
    )
    kv_tokens: int | None = option(
        None,
        "Size of the KV cache in tokens; by default all that the memory share leaves.",
        "Memory and scheduling",
        minimum=1,
    )
    kv_dtype: Literal["auto", "fp8"] = option(
        "auto",
        "Dtype to keep K and V in; auto: the dtype computed in. fp8 (e4m3, no scales; values beyond "
        "448 become 448) takes half the memory of a 16-bit dtype, at some loss of accuracy.",
        "Memory and scheduling",
    )
    page_size: int | None = option(
        None,
        "Tokens of a KV page; by default what the backend likes best.",
        "Memory and scheduling",
        minimum=1,
    )
    max_running_requests: int | None = option(
        None,
        "Most requests that run at once; by default by device.",
        "Memory and scheduling",
        minimum=1,
        maximum=65536,
    )
    max_queued_requests: int = option(
        8192,
        "Most requests that wait; more are answered with 503 and Retry-After.",
        "Memory and scheduling",
        minimum=1,
    )
    max_step_tokens: int | None = option(
        None,
        "Token budget of a step: decodes first, the rest for prefill chunks; by default by device.",
        "Memory and scheduling",
        minimum=1,
    )
    prefix_cache: bool = option(
        True,
        "Keep the KV of finished requests for prompts that begin alike.",
        "Memory and scheduling",
    )
    grammar_engine: str | None = option(
        None,
        "Engine that holds answers to a grammar; by default, for each grammar, the first one installed "
        "that can enforce it to the letter.",
        "Structured output",
    )
    random_seed: int | None = option(
        None,
        "Where the seeds of requests without one come from; by default not reproducible.",
        "Memory and scheduling",
    )

    engine_timeout: float = option(
        300.0,
        "Seconds without a finished step after which the engine counts as hung and is started again.",
        "Memory and scheduling",
        minimum=1,
    )

    # ---- Server ----
    host: str = option("127.0.0.1", "Address to listen on.", "Server")
    port: int = option(30000, "Port to listen on.", "Server", minimum=0, maximum=65535)
    tool_call_parser: str | None = option(
        None,
        "How the model writes calls of tools, e.g. hermes; by default told by its chat template; "
        "none: look for no calls.",
        "Server",
        metavar="NAME",
    )
    reasoning_parser: str | None = option(
        None,
        "How the model sets reasoning apart from the answer, e.g. qwen3; by default told by its "
        "chat template; none: leave it in the content.",
        "Server",
        metavar="NAME",
    )
    api_key: str | None = option(None, "Key that clients must send as a bearer token.", "Server")
    cors_origins: str | None = option(
        None,
        "Origins whose web pages may use the server, e.g. https://app.example, several with commas, "
        "* for any; by default none but its own.",
        "Server",
        metavar="ORIGINS",
    )
    admin_api_key: str | None = option(
        None,
        "Key for routes that concern all users (/flush_cache, /pause_generation ...). Without one they "
        "answer on loopback only.",
        "Server",
    )
    request_timeout: float | None = option(
        None,
        "Seconds after which a request that has not finished is ended; never by default.",
        "Server",
        minimum=0.001,
    )
    profile_dir: str | None = option(
        None,
        "Folder for the traces of /start_profile; by default a new one among the temporary files.",
        "Server",
        metavar="FOLDER",
    )
    api_workers: int = option(
        1, "Front-end processes that share the port.", "Server", minimum=1, maximum=256
    )
    drain_timeout: float = option(
        30.0, "Seconds to let running requests finish at shutdown.", "Server", minimum=0
    )
    log_level: Literal["debug", "info", "warning", "error"] = option(
        "info", "How much to log.", "Server"
    )

    log_requests: bool = option(
        False,
        "Log a line of JSON on standard output for every request that is over: times, tokens, "
        "sampling parameters, but nothing of what was asked or answered.",
        "Server",
    )
    log_request_text: bool = option(
        False, "With --log-requests: also log prompts, answers and error messages.", "Server"
    )
    otlp_endpoint: str | None = option(
        None,
        "Send OpenTelemetry traces to this collector (OTLP over HTTP, such as "
        "http://localhost:4318); needs the extra inarch[otel].",
        "Server",
        metavar="URL",
    )

    def __post_init__(self) -> None:
        for field in fields():
            check(field, getattr(self, field.name))
        if self.quantization_group not in QUANTIZATION_GROUPS:
            raise ConfigError(
                f"--quantization-group: {self.quantization_group} is not one of "
                f"{', '.join(map(str, QUANTIZATION_GROUPS))}"
            )
        if self.log_request_text and not self.log_requests:
            raise ConfigError("--log-request-text needs --log-requests")


@dataclass(frozen=True)
class OptionField:
    """One option, as the command line and the docs see it."""

    name: str
    kind: type  # bool, int, float, str or dict
    choices: tuple[str, ...]  # () = any
    optional: bool  # may be None
    default: Any
    help: str
    group: str
    metavar: str | None
    minimum: float | None
    maximum: float | None

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")


def fields() -> Iterator[OptionField]:
    """Every option of EngineConfig in order of declaration."""
    hints = typing.get_type_hints(EngineConfig)
    for field in dataclasses.fields(EngineConfig):
        kind, choices, optional = _unpack(hints[field.name])
        default = {} if field.default is dataclasses.MISSING else field.default
        meta = field.metadata
        yield OptionField(
            field.name, kind, choices, optional, default,
            meta["help"], meta["group"], meta["metavar"], meta["min"], meta["max"],
        )  # fmt: skip


def _unpack(hint: Any) -> tuple[type, tuple[str, ...], bool]:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType:
        kind, choices, _ = _unpack(next(a for a in arguments if a is not types.NoneType))
        return kind, choices, True
    if origin is Literal:
        return str, tuple(arguments), False
    return origin or hint, (), False


def check(field: OptionField, value: Any) -> None:
    """Raise ConfigError unless `value` has the field's type and lies in its range."""
    if value is None and field.optional:
        return
    wanted = (int, float) if field.kind is float else (field.kind,)
    if not isinstance(value, wanted) or (isinstance(value, bool) and field.kind is not bool):
        raise ConfigError(f"{field.flag}: expected {field.kind.__name__}, got {value!r}")
    if field.choices and value not in field.choices:
        raise ConfigError(f"{field.flag}: {value!r} is not one of {', '.join(field.choices)}")
    if not isinstance(value, int | float):
        return
    if field.minimum is not None and not value >= field.minimum:
        raise ConfigError(f"{field.flag}: {value} is below the least value, {field.minimum:g}")
    if field.maximum is not None and not value <= field.maximum:
        raise ConfigError(f"{field.flag}: {value} is above the greatest value, {field.maximum:g}")


def from_mapping(values: Mapping[str, Any]) -> EngineConfig:
    """Build a configuration from option names (with - or _), refusing unknown ones."""
    known = {field.name for field in fields()}
    named = {key.replace("-", "_"): value for key, value in values.items()}
    unknown = sorted(set(named) - known)
    if unknown:
        raise ConfigError(f"unknown option {unknown[0]!r}; known are: {', '.join(sorted(known))}")
    return EngineConfig(**named)


def dump(config: EngineConfig) -> bytes:
    """A configuration as it travels to another process."""
    return json.dumps(dataclasses.asdict(config)).encode()


def load(dumped: bytes) -> EngineConfig:
    """What `dump` was given."""
    return from_mapping(json.loads(dumped))
