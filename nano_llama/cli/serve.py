"""`nano-llama serve`: an HTTP server that OpenAI's clients use unchanged. The server is nano_llama/server.

Tests: tests/cli/test_serve.py, tests/server/test_run.py.
"""

import dataclasses
import logging
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_type_hints

from cyclopts import Group, Parameter
from rich.console import RenderableType

from nano_llama.cli.common import Count, NotNegative, Output, Screen, facts
from nano_llama.cli.engines import Compute, load_llm
from nano_llama.cli.models import ModelPath, locate_model
from nano_llama.core.errors import UserError, import_extra
from nano_llama.formats.peft import read_adapter_config

if TYPE_CHECKING:
    from nano_llama.core.config import LlamaConfig
    from nano_llama.server.replayer import LastLogits
    from nano_llama.server.service import Service
    from nano_llama.server.settings import ServerSettings
    from nano_llama.vol1_numpy.ops.array import Array
    from nano_llama.vol3_engine.llm import LLM

ENDINGS = (".gguf", ".safetensors", ".pth")  # of a file's name; the model's id is without them

ACCESS = Group("Access", help="By default: programs on this machine, without a key.", sort_key=5)
CAPACITY = Group("Capacity", help="What does not fit is refused with 429, at once.", sort_key=6)


@Parameter(name="*", group=ACCESS)
@dataclasses.dataclass(frozen=True, kw_only=True)
class Access:
    """Where the server listens, and to whom."""

    host: str = "127.0.0.1"
    "Address to listen on; 0.0.0.0: all networks."
    port: NotNegative = 8000
    "Port; 0: any that is free."
    api_key_file: Path | None = None
    "File with the keys that clients must send, one per line (or one key in NANO_LLAMA_API_KEY)."
    allowed_host: tuple[str, ...] = ()
    "A domain name under which clients reach the server; may be given several times."
    cors_origin: tuple[str, ...] = ()
    "A web page that may use the server, as https://example.com; may be given several times; *: all."


@Parameter(name="*", group=CAPACITY)
@dataclasses.dataclass(frozen=True, kw_only=True)
class Capacity:
    """How much runs and waits at once."""

    max_num_seqs: Count = 32
    "Samples that run at once, in one batch."
    max_waiting: Count = 128
    "Samples that may wait for a place."
    kv_cache_memory: str = "2GiB"
    "Memory for keys and values."
    kv_cache_dtype: Literal["auto", "float32", "bfloat16", "int8"] = "auto"
    "Number format of the KV cache; auto: float32 with --dtype float32, else bfloat16."
    limit: tuple[str, ...] = ()
    "Another limit, as NAME=VALUE (max_body_bytes=100000); docs/serving.md lists them, errors name them; repeatable."


EXAMPLE = "nano_gpt"  # of dispatch.py


def run(
    model: ModelPath,
    *,
    served_model_name: tuple[str, ...] = (),
    adapter: tuple[str, ...] = (),
    access: Access | None = None,
    capacity: Capacity | None = None,
    ignore_unknown_fields: bool = False,
    chat_template_kwarg: tuple[str, ...] = (),
    drain_seconds: float = 30.0,
    metrics_prefix: str = "nano_llama",
    log_prompts: bool = False,
    page: bool = True,
    trace: Path | None = None,
    replay: Path | None = None,
    compute: Compute | None = None,
    output: Output | None = None,
) -> int:
    """Serve a model over HTTP, with OpenAI's API: /v1/chat/completions, /v1/completions, /v1/models and more.

    Start it:  nano-llama serve --model nano_gpt

    Try it:  curl http://127.0.0.1:8000/v1/completions -d '{"prompt": "Hello", "max_tokens": 32}'

    From Python:  openai.OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="any")

    The manual is docs/serving.md: endpoints, limits, metrics, security, sizing.

    Requests run together in one batch; the log on stderr is one JSON object per line. Ctrl-C or SIGTERM lets running
    requests end; a second one stops at once.

    Parameters
    ----------
    served_model_name
        Name under which clients ask for the model (default: its file's or folder's name); may be given several times.
    adapter
        NAME=DIR: also serve an adapter of the model, in PEFT's format, under that name; may be given several times.
    ignore_unknown_fields
        Ignore fields of a request that the server does not know, instead of refusing them.
    chat_template_kwarg
        Name of a variable of the chat template that requests may set (as enable_thinking); may be given several times.
    drain_seconds
        Seconds that running requests get to finish after SIGTERM.
    metrics_prefix
        Prefix of the names at /metrics; vllm: those of vLLM's dashboard.
    log_prompts
        Write prompts into the log.
    page
        The page at / that shows what the model and the engine do. --no-page: serve the API alone.
    trace
        File to which the engine's steps are written (no texts, no tokens).
    replay
        A file written by --trace: the page shows the steps in it instead of this engine's.
    """
    screen = Screen(output)
    access, capacity = access or Access(), capacity or Capacity()
    import_extra("uvicorn", "serve", "nano-llama serve")
    from nano_llama.server.adapters import Adapter
    from nano_llama.server.auth import read_keys
    from nano_llama.server.logs import LogWriter, event
    from nano_llama.server.replayer import Replayer
    from nano_llama.server.run import bind, serve, warning_of
    from nano_llama.server.service import Service
    from nano_llama.vol3_engine.trace_files import read_trace

    settings = settings_of(
        capacity.limit,
        host=access.host,
        port=access.port,
        api_key_digests=read_keys(access.api_key_file),
        allowed_hosts=access.allowed_host,
        cors_origins=access.cors_origin,
        max_waiting=capacity.max_waiting,
        drain_seconds=drain_seconds,
        ignore_unknown_fields=ignore_unknown_fields,
        chat_template_kwargs=chat_template_kwarg,
        metrics_prefix=metrics_prefix,
        log_prompts=log_prompts,
        page=page,
    )
    adapters = [Adapter.parse(text) for text in adapter]
    for one in adapters:
        read_adapter_config(one.folder)  # what is not an adapter is refused before the model is loaded
    service = Service(settings, served_model_name or (model_id(model),), adapters)
    if replay is not None:
        if not page:
            raise UserError("--replay is shown on the page.", hint="Leave --no-page out.")
        service.trace = read_trace(replay)
    path = locate_model(model, screen)
    if page:
        service.replayer = Replayer(path, volume2())
    options = {name: getattr(capacity, name) for name in ("max_num_seqs", "kv_cache_memory", "kv_cache_dtype")}
    options["trace"] = trace

    def load() -> "LLM":
        llm = load_llm(path, compute or Compute(), adapter=service.adapters, **options)
        llm.engine.limit_step_time(settings.step_seconds)
        return llm

    with bind(settings.host, settings.port) as sock, LogWriter(quiet=screen.quiet):
        if warning := warning_of(service):
            event("warning", logging.WARNING, message=warning)
        return serve(service, load, lambda url: announce(screen, service, url), sock)


def volume2() -> "LastLogits | None":
    """Volume 2's forward pass for the page, which imports torch once somebody asks; None without torch."""
    if find_spec("torch") is None:
        return None

    def logits(weights: "Mapping[str, Array]", config: "LlamaConfig", tokens: Sequence[int]) -> "Array":
        from nano_llama.vol2_torch.layerwise import last_logits

        return last_logits(weights, config, tokens)

    return logits


def settings_of(limits: Sequence[str], **given: Any) -> "ServerSettings":
    """ServerSettings with the values that `--limit NAME=VALUE` gives. Raises UserError for an unknown name."""
    from nano_llama.server.settings import ServerSettings

    kinds = {name: kind for name, kind in get_type_hints(ServerSettings).items() if kind in (int, float, int | None)}
    for entry in limits:
        name, _, text = entry.partition("=")
        if name not in kinds or name in given:
            known = ", ".join(sorted(kinds.keys() - given.keys()))
            raise UserError(f"--limit {entry}: unknown limit {name!r}.", hint=f"Limits: {known}.")
        try:
            given[name] = float(text) if kinds[name] is float else int(text)
        except ValueError:
            raise UserError(f"--limit {entry}: {text!r} is not a number.") from None
    return ServerSettings(**given)


def model_id(model: str) -> str:
    """The name of the file or folder, without its ending."""
    name = Path(model).name or Path(model).resolve().name
    return next((name.removesuffix(ending) for ending in ENDINGS if name.endswith(ending)), name)


def announce(screen: Screen, service: "Service", url: str) -> None:
    """On stdout, once requests are answered: where, which model, how much, and a command to try."""
    llm, settings = service.llm, service.settings
    data = {
        "url": url,
        "model": service.model_ids[0],
        "context": llm.config.max_position_embeddings,
        "max_num_seqs": llm.settings.max_num_seqs,
        "max_waiting": settings.max_waiting,
        "api_key": bool(settings.api_key_digests),
    }
    screen.result(data, *greeting(data))
    sys.stdout.flush()


def greeting(data: dict[str, Any]) -> list[RenderableType]:
    key = ' -H "Authorization: Bearer $NANO_LLAMA_API_KEY"' if data["api_key"] else ""
    body = '{"prompt": "Once upon a time", "max_tokens": 32}'
    rows = {
        "model": data["model"],
        "API": f"{data['url']}/v1",
        "at once": f"{data['max_num_seqs']} run, {data['max_waiting']} wait, context {data['context']:,} tokens",
        "try": f"curl {data['url']}/v1/completions{key} -d '{body}'",
    }
    return [facts(rows)]
