"""`nano-llama info`: what a file or folder is, in a short table: model, adapter, tokenizer, dataset, shard or run.

The kind is recognized by content, not by name, but for text, which may hold anything (info_text.py).
Tests: tests/cli/test_info.py.
"""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import RenderableType

from nano_llama.cli.common import Output, Screen, facts, table
from nano_llama.cli.info_text import is_text, show_text
from nano_llama.cli.models import check_readable, locate_model
from nano_llama.core.config import LlamaConfig
from nano_llama.core.errors import FormatError, NanoLlamaError, UserError
from nano_llama.core.units import count_text, plural, size_text
from nano_llama.core.variants import variants
from nano_llama.core.vision.config import ModelConfig, VisionLanguageConfig, language_config
from nano_llama.formats.peft import is_adapter
from nano_llama.formats.vision_config import is_vision_language, vision_language_from_hf, vision_language_to_hf

Shown = tuple[dict[str, Any], list[RenderableType]]  # for --json, and for people

EXAMPLE = "nano_gpt"  # of dispatch.py


def run(
    path: str,
    /,
    *,
    output: Output | None = None,
) -> int:
    """Say what a file or folder is: a model (Hugging Face, GGUF, .safetensors, .pth), adapter, tokenizer, text, run.

    For a model, it reads headers and metadata, never all of the weights.

    Parameters
    ----------
    path
        A file, a folder, a hub name (org/name), or stdlib, shakespeare or classic-books.
    """
    screen = Screen(output)
    if not path:
        raise UserError("The path is empty.", hint="Give a file, a folder or a hub name (org/name).")
    place = Path(path).expanduser()
    check_readable(place)
    kind, look = kind_of(place) if place.exists() else ("model", lambda p: show_model(locate_model(path, screen)))
    if kind == "model" and is_text(path) and not is_model(place):
        kind, look = "text", lambda _: show_text(path)
    data, shown = look(place)
    screen.result({"kind": kind, **data}, *shown)
    return 0


def is_model(path: Path) -> bool:
    """Whether it is of a kind that the model reader takes, or a folder of such files."""
    from nano_llama.formats import detect

    try:
        return path.exists() and (any(path.glob("*.gguf")) or bool(detect(path)))
    except FormatError:
        return False


def kind_of(path: Path) -> tuple[str, Callable[[Path], Shown]]:
    """The kind of a file or folder, and the function that shows it. An unknown file is left to the model reader."""
    if path.is_dir():
        for file, kind, look in (
            ("train.json", "run", show_run),
            ("dataset.json", "dataset", show_dataset),
            ("adapter_config.json", "adapter", show_adapter),
        ):
            if (path / file).is_file():
                return kind, look
        if (path / "tokenizer.json").is_file() and not (path / "config.json").is_file():
            return "tokenizer", show_tokenizer
        if runs := runs_in(path):
            raise UserError(
                f"{path} is not a training run, but a folder of runs.",
                hint=f"Compare them:  nano-llama runs {path}    or see one:  nano-llama info {runs[0]}",
            )
        return "model", show_model
    with path.open("rb") as file_:
        head = file_.read(64)
    if head.startswith(b"NLSHARD"):
        return "shard", show_shard
    if path.name == "metrics.jsonl":
        return "metrics", show_metrics
    if head.lstrip()[:1] == b"{" and path.suffix == ".json":
        return json_kind(path)
    return "model", show_model


def runs_in(folder: Path) -> list[Path]:
    """The training runs in a folder that holds no model; compare's lie one level deeper."""
    files = [] if is_model(folder) else [*sorted(folder.glob("*/train.json")), *sorted(folder.glob("*/*/train.json"))]
    found = []
    for file in files:
        with suppress(FormatError):  # examples may be in a train.json too
            if json_kind(file)[0] == "training settings":
                found.append(file.parent)
    return found


def json_kind(path: Path) -> tuple[str, Callable[[Path], Shown]]:
    """The kind of a JSON file, by its keys. Raises FormatError for an unknown one."""
    from nano_llama.core.files import read_json

    value = read_json(path)
    keys = value.keys() if isinstance(value, dict) else set()
    if "model" in keys and isinstance(value["model"], dict):
        return "tokenizer", show_tokenizer
    if ("hidden_size" in keys and "data" not in keys) or is_vision_language(value):
        return "config", show_config
    if "lr" in keys and "data" in keys:
        return "training settings", show_settings
    if {"made_from", "splits"} <= keys:
        return "dataset", lambda file: show_dataset(file.parent)
    raise FormatError(
        f"{path} is JSON of an unknown kind.",
        hint="Known: tokenizer.json, a LLaMA's config.json, train.json, dataset.json.",
    )


def show_model(path: Path) -> Shown:
    """Format, size and shape, read from headers; with its tokenizer where there is one."""
    from nano_llama.formats import describe

    data = describe(path)
    stored = ", ".join(f"{count} {kind}" for kind, count in sorted(data["types"].items()))
    parameters = data["parameters"]
    rows = {
        "path": data["path"],
        "format": data["format"],
        "parameters": f"{parameters:,} ({count_text(parameters)})",
        "tensors": f"{data['tensors']:,}: {stored}",
        "size": f"{size_text(data['bytes'])}, {8 * data['bytes'] / max(parameters, 1):.2f} bits per parameter",
    }
    shown: list[RenderableType] = [facts(rows, "Model")]
    if data["config"] is not None:
        config = model_config(data["config"], str(path))
        shown += ["", *shape(config)]
        data["kv_cache_bytes_per_token"] = kv_bytes(language_config(config))
    try:
        tokenizer, lines = show_tokenizer(path)
        data["tokenizer"] = tokenizer
        shown += ["", *lines]
    except NanoLlamaError as error:
        data["tokenizer"] = None
        shown += ["", f"No tokenizer: {error.message}"]
    words = {key: value for key, value in data["metadata"].items() if key.startswith("general.") or "." not in key}
    if words:
        shown += ["", facts({key: str(value)[:200] for key, value in words.items()}, "Metadata")]
    return data, shown


def show_adapter(path: Path) -> Shown:
    """An adapter's settings, its size, and the model that it belongs to."""
    from nano_llama.cli.adapters import adapter_facts

    data, rows = adapter_facts(path)
    return data, [facts(rows, "Adapter")]


def model_config(raw: Any, source: str) -> ModelConfig:
    """What a config.json describes."""
    return vision_language_from_hf(raw, source) if is_vision_language(raw) else LlamaConfig.from_hf_dict(raw, source)


def shape(config: ModelConfig) -> list[RenderableType]:
    """The LLaMA's shape, and that of its image encoder where it has one."""
    shown: list[RenderableType] = [facts(shape_rows(language_config(config)), "Shape")]
    if isinstance(config, VisionLanguageConfig):
        vision = config.vision_config
        rows = {
            "image": f"{vision.image_size} x {vision.image_size} pixels, {config.image_seq_len} tokens of the context",
            "patches": f"{vision.num_patches}, of {vision.patch_size} x {vision.patch_size} pixels",
            "layers": vision.num_hidden_layers,
            "width": vision.hidden_size,
            "heads": vision.num_attention_heads,
            "MLP width": vision.intermediate_size,
        }
        shown += ["", facts(rows, "Image encoder")]
    return shown


def shape_rows(config: Any) -> dict[str, Any]:
    """A LlamaConfig as rows, with the letters of the shape legend."""
    rope = config.rope_scaling
    return {
        "layers (L)": config.num_hidden_layers,
        "width (D)": config.hidden_size,
        "query heads (H)": config.num_attention_heads,
        "key/value heads (G)": config.num_key_value_heads,
        "head dim (K)": config.head_dim,
        "MLP width (F)": config.intermediate_size,
        "vocabulary (V)": config.vocab_size,
        "context": f"{config.max_position_embeddings:,} tokens",
        "RoPE": f"theta {config.rope_theta:g}" + (f", {rope.rope_type}, factor {rope.factor:g}" if rope else ""),
        "head": "tied to the embedding" if config.tie_word_embeddings else "its own",
        **variants(config),
        "KV cache": f"{size_text(kv_bytes(config))} per token in float32",
    }


def kv_bytes(config: Any) -> int:
    """Bytes of one token's keys and values in float32: 2 (K and V) x L x G x K x 4."""
    return 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * 4


def show_config(path: Path) -> Shown:
    """A config.json alone."""
    from nano_llama.core.files import read_json

    raw = read_json(path, "model config")
    config = model_config(raw, str(path))
    rows = {"path": path, "parameters": f"{config.num_parameters:,} ({count_text(config.num_parameters)})"}
    data = {
        "path": str(path),
        "parameters": config.num_parameters,
        "config": vision_language_to_hf(config) if isinstance(config, VisionLanguageConfig) else config.to_hf_dict(),
    }
    return data, [facts(rows, "Config"), "", *shape(config)]


def show_tokenizer(path: Path) -> Shown:
    """Kind, vocabulary and special tokens."""
    from nano_llama.tokenizer import Tokenizer

    tokenizer = Tokenizer.from_pretrained(path)
    special = sorted(tokenizer.special_ids)
    names = [f"{tokenizer.decode([i], skip_special=False)} ({i})" for i in special]
    data = {
        "path": str(path),
        "type": tokenizer.kind,
        "vocab_size": tokenizer.vocab_size,
        "bos_id": tokenizer.bos_id,
        "eos_id": tokenizer.eos_id,
        "pad_id": tokenizer.pad_id,
        "unk_id": tokenizer.unk_id,
        "stop_ids": sorted(tokenizer.stop_ids),
        "special_ids": special,
        "chat_template": tokenizer.chat_template is not None,
        "fingerprint": tokenizer.fingerprint,
    }
    rows = {
        "type": tokenizer.kind,
        "vocabulary": f"{tokenizer.vocab_size:,} ids",
        "begin, end of text": f"{_id(tokenizer.bos_id)}, {_id(tokenizer.eos_id)}",
        "special": ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "") or "none",
        "chat template": "yes" if tokenizer.chat_template is not None else "no: not made for  nano-llama chat",
        "fingerprint": tokenizer.fingerprint[:16],
    }
    return data, [facts(rows, "Tokenizer")]


def _id(token: int | None) -> str:
    return "none" if token is None else str(token)


def show_dataset(path: Path) -> Shown:
    """A prepared dataset: what is in its splits."""
    from nano_llama.data.dataset import open_dataset
    from nano_llama.data.report import make_report

    report = make_report(open_dataset(path))
    header = ("split", "documents", "bytes", "tokens", "bytes per token", "repeated", "longest")
    lines = [
        (name, s.documents, s.bytes, s.tokens, round(s.bytes_per_token, 2), s.repeated, s.longest.name)
        for name, s in (("train", report.train), ("val", report.val))
    ]
    rows = {
        "path": path,
        "source": report.source,
        "tokenizer": f"{report.tokenizer} ({report.vocab_size:,} ids)",
        "in both splits": plural(len(report.leaks), "document"),
    }
    return {"path": str(path), **report.to_dict()}, [facts(rows, "Dataset"), "", table(header, lines)]


def show_shard(path: Path) -> Shown:
    """One token shard, by its header."""
    from nano_llama.data.shards import read_header

    header = read_header(path)
    data = {
        "path": str(path),
        "tokens": header.num_tokens,
        "documents": header.num_documents,
        "bytes_of_text": header.num_bytes,
        "bytes_per_token_stored": header.token_bytes,
        "vocab_size": header.vocab_size,
        "sha256": header.body_sha256.hex(),
    }
    return data, [facts({key.replace("_", " "): value for key, value in data.items()}, "Token shard")]


def show_metrics(path: Path) -> Shown:
    """How far a run has got, and its losses."""
    from nano_llama.training.metrics import best_of, read_metrics

    rows = read_metrics(path)
    if not rows:
        raise UserError(f"{path} has no lines yet.", hint="The first comes after a few steps.")
    last = rows[-1]
    evaluated = [row for row in rows if "val_loss" in row]
    best = best_of(rows)
    data = {"path": str(path), "lines": len(rows), "last": last, "best": best}
    shown = {
        "step": last["step"],
        "tokens seen": last.get("tokens"),
        "training loss": last.get("train_loss"),
        "validation loss": evaluated[-1]["val_loss"] if evaluated else None,
        "best": f"{best['val_loss']:.4f} at step {best['step']:,}" if best else None,
        "the run's model": f"of step {last['model_step']:,}" if "model_step" in last else None,
        "bits per byte": evaluated[-1].get("val_bits_per_byte") if evaluated else None,
        "tokens/s": last.get("tokens_per_second"),
    }
    return data, [facts(shown, "Progress")]


def show_settings(path: Path) -> Shown:
    """A train.json: the settings that differ from the defaults."""
    from nano_llama.training.saved_settings import load_settings

    found = load_settings(path)
    shown = facts(found.changed, "Settings that differ from the defaults")
    return {"path": str(path), "settings": found.to_json()}, [shown]


def show_run(path: Path) -> Shown:
    """A run: its settings, its progress, its checkpoints and its model."""
    from nano_llama.training.checkpoint import list_checkpoints

    data, shown = show_settings(path / "train.json")
    data["path"] = str(path)
    if (path / "metrics.jsonl").is_file():
        try:
            data["progress"], lines = show_metrics(path / "metrics.jsonl")
            shown += ["", *lines]
        except UserError as error:
            shown += ["", error.message]
    checkpoints = list_checkpoints(path / "checkpoints")
    data["checkpoints"] = [str(checkpoint) for checkpoint in checkpoints]
    ended = any(path.glob("*.safetensors"))
    shown += ["", facts({"checkpoints": ", ".join(c.name for c in checkpoints) or "none", "finished": ended})]
    source = path if ended else checkpoints[-1] if checkpoints else None
    if source is not None:
        data["model"], lines = (show_adapter if is_adapter(source) else show_model)(source)
        shown += ["", *lines]
    return data, shown
