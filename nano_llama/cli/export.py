"""`nano-llama export`: a model in another format, tensor by tensor, so that memory holds one tensor, not the model;
or an adapter for llama.cpp.

Tests: tests/cli/test_export.py.
"""

import time
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from nano_llama.cli.adapters import find_base
from nano_llama.cli.common import Output, Screen, facts, path_with_a_name
from nano_llama.cli.models import ModelPath, find_tokenizer, locate_model
from nano_llama.core.errors import UserError
from nano_llama.core.units import size_text, time_text
from nano_llama.core.variants import require_llama
from nano_llama.formats.peft import is_adapter, read_adapter

TRY_IT = {
    "hf": "transformers: AutoModelForCausalLM.from_pretrained({out!r})",
    "pth": "torch.load({out!r}, weights_only=True)",
    "gguf": "llama.cpp: llama-cli -m {out}",
}

EXAMPLE = "nano_gpt --format gguf --out nano_gpt.gguf"  # of dispatch.py


def run(
    model: ModelPath,
    *,
    format: Literal["hf", "pth", "gguf"],
    out: Annotated[Path, Parameter(converter=path_with_a_name)],
    dtype: str = "auto",
    base: str | None = None,
    output: Output | None = None,
) -> int:
    """Save a model for other programs: Hugging Face (hf), PyTorch (pth), llama.cpp (gguf).

    An adapter becomes what llama.cpp takes beside its model: --format gguf.

    Parameters
    ----------
    format
        hf: a folder with safetensors, config.json and the tokenizer. pth: one file, {"model": tensors, "config": ...}.
        gguf: one file with the tokenizer inside.
    out
        The folder or file to write. Must be new.
    dtype
        How weights are stored: float32, float16 or bfloat16; in gguf also q8_0, q4_0, q4_1 (blocks of 32 weights with
        a scale) and keep (quantized blocks as they are). auto: hf and pth as in the source, gguf float16, an adapter
        float32.
    base
        Where --model is an adapter: the model that it was trained on. By default what its adapter_config.json names.
    """
    screen = Screen(output)
    if out.exists() or out.is_symlink():
        raise UserError(f"--out {out} already exists.", hint="Choose another path, or remove it first.")
    check_type(format, dtype)
    if is_adapter(Path(model).expanduser()):
        return export_adapter(Path(model).expanduser(), base, format, out, dtype, screen)
    if base is not None:
        raise UserError(f"--base {base} belongs to an adapter, and {model} is not one.", hint="Leave it out.")
    from nano_llama.formats import open_model, reads_images

    path = locate_model(model, screen)
    began = time.perf_counter()
    if reads_images(path):
        return export_with_images(path, model, format, out, dtype, screen)
    with open_model(path) as weights:
        config = weights.config
        if format == "hf":  # a folder of ours, which save_hf would write, is not for other programs
            hint = "--format pth holds it, for this project; a run's own folder does, too."
            require_llama(config, "every architecture of transformers", ("norm_placement",), hint=hint)
        tokenizer = None if format == "pth" else find_tokenizer(path, screen)
        screen.say(f"Writing {config.num_parameters:,} parameters as {format} to {out} ...", style="dim")
        if format == "hf":
            from nano_llama.formats import save_hf
            from nano_llama.formats.hf_folder import read_generation_config

            own = None if dtype == "auto" else dtype
            save_hf(out, config, weights, tokenizer, own, generation_config=read_generation_config(path))
        elif format == "pth":
            from nano_llama.formats import save_pth

            save_pth(out, weights, config, dtype=None if dtype == "auto" else dtype)
        else:
            from nano_llama.formats import save_gguf

            save_gguf(out, config, weights, tokenizer, dtype=gguf_type(dtype))
    written = size_of(out)
    result = {
        "model": model,
        "format": format,
        "out": str(out),
        "parameters": config.num_parameters,
        "bytes": written,
        "tokenizer": tokenizer is not None,
        "seconds": time.perf_counter() - began,
    }
    shown = {
        "written": out,
        "format": format,
        "size": size_text(written),
        "parameters": config.num_parameters,
        "tokenizer": "included" if tokenizer is not None else "not included",
        "took": time_text(time.perf_counter() - began),
        "open it with": TRY_IT[format].format(out=str(out)),
    }
    screen.result(result, facts(shown))
    return 0


def export_with_images(path: Path, model: str, format: str, out: Path, dtype: str, screen: Screen) -> int:
    """A model that reads images as the folder that transformers reads, its blocks (if it has any) dequantized."""
    from nano_llama.formats.image_processor import processor_files
    from nano_llama.formats.vision_folder import open_vision_language, save_vision_language

    if format != "hf":
        raise UserError(
            f"--format {format} is for models of text; {model} reads images.", hint="Use --format hf, for transformers."
        )
    began = time.perf_counter()
    config, weights = open_vision_language(path)
    with weights:
        tokenizer = find_tokenizer(path, screen)
        screen.say(f"Writing {config.num_parameters:,} parameters as {format} to {out} ...", style="dim")
        own = None if dtype == "auto" else dtype
        save_vision_language(out, config, weights, tokenizer, own, extra_files=processor_files(path))
    seconds, found = time.perf_counter() - began, tokenizer is not None
    result = {"model": model, "format": format, "out": str(out), "parameters": config.num_parameters,
              "bytes": size_of(out), "tokenizer": found, "seconds": seconds}  # fmt: skip
    shown = {
        "written": out,
        "format": format,
        "size": size_text(size_of(out)),
        "parameters": config.num_parameters,
        "tokenizer": "included" if found else "not included",
        "took": time_text(seconds),
        "open it with": f"transformers: Idefics3ForConditionalGeneration.from_pretrained({str(out)!r})",
    }
    screen.result(result, facts(shown))
    return 0


def export_adapter(adapter: Path, base: str | None, format: str, out: Path, dtype: str, screen: Screen) -> int:
    """An adapter in PEFT's format as the GGUF that llama.cpp takes beside its model."""
    from nano_llama.formats import read_config
    from nano_llama.formats.gguf_adapter import save_gguf_adapter

    if format != "gguf":
        raise UserError(
            f"--format {format}: {adapter} is an adapter, in the format that Hugging Face's PEFT reads.",
            hint=f"For a whole model:  nano-llama merge --adapter {adapter} --out {out}",
        )
    config = read_config(find_base(base, adapter, screen, "--base"))
    stored = read_adapter(adapter, config)
    save_gguf_adapter(out, stored, config, gguf_type("float32" if dtype == "auto" else dtype))
    parameters = sum(tensor.size for tensor in stored.tensors.values())
    result = {"model": str(adapter), "format": format, "out": str(out), "parameters": parameters, "bytes": size_of(out)}
    shown = {
        "written": out,
        "adapter": str(stored.lora),
        "size": size_text(size_of(out)),
        "parameters": parameters,
        "open it with": f"llama.cpp: llama-cli -m MODEL.gguf --lora {out}",
    }
    screen.result(result, facts(shown))
    return 0


def check_type(format: str, dtype: str) -> None:
    """Raise UserError for a number format that such files do not hold: before it is said that one is written."""
    if format == "gguf":
        from nano_llama.formats.gguf import written_type

        written_type(gguf_type(dtype))
    elif dtype != "auto":
        from nano_llama.formats.dtypes import float_name

        float_name(dtype)


def gguf_type(dtype: str) -> str:
    """GGUF's name of a number format: "float16" -> "F16"; its own names are kept."""
    names = {"auto": "F16", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}
    return names.get(dtype.lower(), dtype)


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
