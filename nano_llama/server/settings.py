"""ServerSettings: every limit of the server, with its default. An error that a limit causes names it.

Not here: the engine's settings (vol3_engine/settings.py). Tests: tests/server/test_settings.py.
"""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, get_type_hints

from nano_llama.core.errors import UserError


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """Where the server listens, who may talk to it, and how much it takes.

    Limits count what one client may cost: they are checked before the work begins, and refused by name.
    """

    # where, and who
    host: str = "127.0.0.1"
    port: int = 8000
    api_key_digests: tuple[bytes, ...] = field(default=(), repr=False)  # SHA-256; (): everybody may use the server
    allowed_hosts: tuple[str, ...] = ()  # names in the Host header, beside loopback names and addresses; "*": all
    cors_origins: tuple[str, ...] = ()  # pages of other origins that may call, as "https://host:port"; "*": all

    # the queue
    max_waiting: int = 128  # requests that may wait; further ones get 429
    max_waiting_tokens: int | None = None  # prompt tokens that may wait; None: AsyncEngine's default

    step_seconds: float = 0.1  # how long a step of the engine may take: everybody's next token waits for it

    # connections
    max_connections: int = 256
    max_connections_per_address: int = 16  # loopback excepted
    max_header_bytes: int = 16 * 1024
    max_body_bytes: int = 1024 * 1024  # without the pictures in it, which only a model that sees takes
    max_image_bytes: int = 20 * 2**20  # of all pictures in a body, as base64: one of a phone has 3 to 12 MB
    max_held_bytes: int = 256 * 2**20  # of all bodies that may have pictures, until these are pixels
    header_seconds: float = 10.0  # within which the headers of a request must arrive
    body_seconds: float = 30.0  # within which its body must arrive
    send_seconds: float = 30.0  # how long an answer may wait for a client that does not read
    keep_alive_seconds: float = 65.0  # an idle connection is closed after it
    drain_seconds: float = 30.0  # how long running requests may go on after SIGTERM

    # one request
    max_json_depth: int = 128
    max_prompts: int = 128  # of /v1/completions
    max_prompt_characters: int = 1_000_000  # before tokenizing
    max_choices: int = 16  # n; the engine's max_num_seqs limits it too
    max_logprobs: int = 20
    max_logit_bias: int = 1024  # entries
    max_stop_strings: int = 16
    max_stop_characters: int = 1024  # of one stop string
    max_schema_bytes: int = 64 * 1024  # of a schema, regex, choice or grammar

    # what is understood
    ignore_unknown_fields: bool = False  # of a body; else they are refused
    chat_template_kwargs: tuple[str, ...] = ()  # names that a request may set for the chat template
    page: bool = True  # the page at /, and what it asks for at /inspect/

    # what is written
    metrics_prefix: str = "nano_llama"  # "vllm" writes the names that vLLM's dashboard reads
    log_prompts: bool = False

    def __post_init__(self) -> None:
        hints = get_type_hints(ServerSettings)
        for setting in dataclasses.fields(self):
            value, kind = getattr(self, setting.name), hints[setting.name]
            if kind in (int, float, int | None):
                _check_number(setting.name, value, kind, least=0 if setting.name in ("port", "drain_seconds") else 1)
        one = self.max_body_bytes + self.max_image_bytes
        if self.max_held_bytes < one:
            raise UserError(
                f"max_held_bytes={self.max_held_bytes:,} is less than one body of {one:,} bytes may have"
                " (max_body_bytes + max_image_bytes).",
                hint=f"--limit max_held_bytes={8 * one}  holds eight.",
            )
        if self.port > 65_535:
            raise UserError(f"port={self.port} must be at most 65535.", hint="0 takes any free port.")


def _check_number(name: str, value: Any, kind: Any, least: int) -> None:
    if value is None and kind == int | None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float) if kind is float else int):
        raise UserError(f"{name}={value!r} must be a {'number' if kind is float else 'whole number'}.")
    if not (value >= least or (kind is float and value > 0)) or not math.isfinite(value):
        raise UserError(f"{name}={value!r} must be at least {least}.")
