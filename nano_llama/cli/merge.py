"""`nano-llama merge`: an adapter summed into the weights of its model, which gives an ordinary model.

The sum: formats/merged.py. Tests: tests/cli/test_merge.py.
"""

import time
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from nano_llama.cli.adapters import find_base
from nano_llama.cli.common import Output, Screen, facts, path_with_a_name
from nano_llama.cli.export import check_type, gguf_type, size_of
from nano_llama.cli.models import ModelPath, find_tokenizer
from nano_llama.core.errors import UserError
from nano_llama.core.units import size_text, time_text
from nano_llama.formats import open_text_model, reads_images
from nano_llama.formats.dtypes import DTYPES, HF_NAMES
from nano_llama.formats.merged import (
    MergedWeights,
    Rounding,
    open_merged,
    read_back,
    read_back_images,
    total_rounding,
)
from nano_llama.formats.peft import read_adapter_config
from nano_llama.formats.vision_folder import open_vision_language, save_vision_language, with_language_model

MUCH = 0.3  # of an adapter's change: rounding that moves the weights further than that is remarked on
SCHEMES = {"Q8_0": "int8", "Q4_0": "int4-sym"}  # as nano-llama quantize names them; for all others int4
Folder = Annotated[Path, Parameter(converter=path_with_a_name)]

EXAMPLE = "--adapter runs/mine --out merged"  # of dispatch.py


def run(
    model: ModelPath | None = None,
    *,
    adapter: Folder,
    out: Folder,
    dtype: str = "auto",
    output: Output | None = None,
) -> int:
    """Merge an adapter (LoRA, rsLoRA, DoRA, in PEFT's format) into its model, for programs that take one model. Of a
    model that reads images it is the LLaMA's.

    Every tensor that was written is read back and compared, and how much of the adapter its rounding cost is shown.

    Parameters
    ----------
    model
        The model that the adapter was trained on. By default what its adapter_config.json names.
    adapter
        The folder with adapter_config.json and adapter_model.safetensors.
    out
        The folder to write, or a file ending in .gguf. Must be new.
    dtype
        How weights are stored: float32, float16 or bfloat16; in a .gguf also q8_0, q4_0, q4_1 (blocks of 32 weights
        with a scale) and keep (matrices without adapter as they are). auto: as in the model, float32 where that is
        quantized.
    """
    screen = Screen(output)
    if out.exists() or out.is_symlink():
        raise UserError(f"--out {out} already exists.", hint="Choose another path, or remove it first.")
    check_type("gguf" if out.suffix == ".gguf" else "hf", dtype)
    lora = read_adapter_config(adapter)
    path = find_base(model, adapter, screen)
    with_images = reads_images(path)
    if with_images and out.suffix == ".gguf":
        raise UserError(f"--out {out} is for models of text; {path} reads images.", hint="Give a folder.")
    began = time.perf_counter()
    with open_merged(path, adapter, sum_type(dtype), open_text_model) as weights:
        tokenizer_at = adapter if (adapter / "tokenizer.json").is_file() else path
        tokenizer = find_tokenizer(tokenizer_at, screen)
        screen.say(f"Merging {len(weights.adapted):,} matrices of {path} with {adapter} ...", style="dim")
        roundings = (write_with_images if with_images else write)(out, path, weights, tokenizer, dtype)
        blocks = [kind for name in weights.base if (kind := weights.base.dtype_name(name)) not in DTYPES]
    again = quantize_again(out, blocks) if blocks and dtype in ("auto", *HF_NAMES.values()) else None
    total, worst = total_rounding(roundings), max(roundings, key=lambda one: one.relative)
    result = {
        "model": str(path),
        "adapter": str(adapter),
        "out": str(out),
        "matrices": len(roundings),
        "bytes": size_of(out),
        "tokenizer": tokenizer is not None,
        "rounding": {"relative": total.relative, "worst": worst.relative, "worst_name": worst.name},
        "quantize_again": again,
        "seconds": time.perf_counter() - began,
    }
    shown = {
        "written": out,
        "size": size_text(size_of(out)),
        "model": path,
        "adapter": f"{adapter}: {lora}",
        "merged": f"{len(roundings):,} matrices, all tensors read back and equal",
        "lost to rounding": rounding_text(total, worst),
        "tokenizer": f"from {tokenizer_at}" if tokenizer is not None else "not included",
        "took": time_text(time.perf_counter() - began),
        "try it": f"nano-llama generate --model {out}{' --image FILE' if with_images else ''} --prompt ...",
    }
    screen.result(result, facts(shown))
    if again is not None:
        screen.say(f"{path} is quantized, the merged model is not. To quantize it as well:")
        screen.say(f"  {again}", whole_lines=True)
    if total.change and total.relative > MUCH:
        screen.say(
            f"Rounding moved the weights by {total.relative:.0%} of what the adapter moved them: compare the merged"
            " model with the unmerged one, or merge into a wider --dtype.",
            style="yellow",
        )
    return 0


def sum_type(dtype: str) -> str | None:
    """The type in which adapted matrices are handed on to be written: what is asked for, so that they round once."""
    if dtype in ("auto", "keep"):
        return None
    floats = {*HF_NAMES, *HF_NAMES.values()}
    return dtype if dtype in floats | {name.lower() for name in floats} else "F32"


def write(out: Path, path: Path, weights: MergedWeights, tokenizer: Any, dtype: str) -> list[Rounding]:
    """Write the model and read it back before it takes its name."""
    roundings: list[Rounding] = []

    def check(written: Path) -> None:
        roundings.extend(read_back(written, weights))

    if out.suffix == ".gguf":
        from nano_llama.formats import save_gguf

        own = weights.dtype_name(weights.adapted[0])
        wanted = gguf_type(dtype) if dtype != "auto" else "F32" if own == "F64" else own
        save_gguf(out, weights.config, weights, tokenizer, wanted, check=check)
    else:
        from nano_llama.formats import save_hf
        from nano_llama.formats.hf_folder import read_generation_config

        own_dtype = None if dtype == "auto" else dtype
        generation = read_generation_config(path)
        save_hf(out, weights.config, weights, tokenizer, own_dtype, generation_config=generation, check=check)
    return roundings


def write_with_images(out: Path, path: Path, weights: MergedWeights, tokenizer: Any, dtype: str) -> list[Rounding]:
    """The same with the encoder of the model at `path` before the merged LLaMA."""
    from nano_llama.formats.hf_folder import read_generation_config
    from nano_llama.formats.image_processor import processor_files

    roundings: list[Rounding] = []
    own, whole = open_vision_language(path)
    with whole:
        config, merged = with_language_model(own, whole, weights)

        def check(written: Path) -> None:
            roundings.extend(read_back(written, weights))
            read_back_images(written, config, whole)

        save_vision_language(
            out, config, merged, tokenizer, None if dtype == "auto" else dtype, check=check,
            extra_files=processor_files(path), generation_config=read_generation_config(path),
        )  # fmt: skip
    return roundings


def rounding_text(total: Rounding, worst: Rounding) -> str:
    """How much of the adapter's change was lost, in words."""
    if not total.change:
        return "nothing: this adapter is as it was initialized, and changes no weight"
    if not total.error:
        return "nothing"
    return f"{total.relative:.1%} of what the adapter changed; worst {worst.relative:.1%}, {worst.name}"


def quantize_again(out: Path, kinds: list[str]) -> str:
    """The next command for a model that was quantized, and now is not."""
    most = max(set(kinds), key=kinds.count)
    scheme = SCHEMES.get(most, "int4")
    return f"nano-llama quantize --model {out} --to {scheme} --out {str(out).removesuffix('.gguf')}-{scheme}"
