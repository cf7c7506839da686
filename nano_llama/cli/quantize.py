"""`nano-llama quantize`: a model's weight matrices in 4 or 8 bits, saved as a folder that every command reads.

Schemes: formats/quantization_scheme.py. The folder: formats/quantized.py. --compare, what a scheme costs in quality:
quantize_compare.py; what it gains in speed: bench/quantization.py. Tests: tests/cli/test_quantize.py.
"""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Group, Parameter

from nano_llama.cli.common import Count, Output, Screen, facts, path_with_a_name
from nano_llama.cli.models import ModelPath, find_tokenizer, locate_model
from nano_llama.cli.quantize_compare import COMPARED_TOKENS, compare_on_text
from nano_llama.core.errors import UserError
from nano_llama.core.units import size_text, time_text
from nano_llama.data.sources import Split

if TYPE_CHECKING:
    from nano_llama.core.vision.config import ModelConfig
    from nano_llama.formats.kinds import Kind
    from nano_llama.formats.mapping import TensorMapping
    from nano_llama.formats.quantization_scheme import Scheme

    Opened = tuple[ModelConfig, TensorMapping, dict[str, Kind], Callable[..., None]]

EXAMPLE = "nano_gpt --to int8 --out small"  # of dispatch.py
NEEDS = {"--to": ("--compare",), "--out": ("--compare",)}  # of dispatch.py
COMPARISON = Group("Comparison", help="What each scheme costs, before you choose one.", sort_key=10)


def run(
    model: ModelPath,
    *,
    to: tuple[str, ...] = (),
    out: Annotated[Path | None, Parameter(converter=path_with_a_name, show_default=False)] = None,
    compare: Annotated[bool, Parameter(group=COMPARISON)] = False,
    data: Annotated[str | None, Parameter(group=COMPARISON)] = None,
    split: Annotated[Split, Parameter(group=COMPARISON)] = "val",
    tokens: Annotated[Count, Parameter(group=COMPARISON)] = COMPARED_TOKENS,
    context: Annotated[Count | None, Parameter(group=COMPARISON, show_default=False)] = None,
    output: Output | None = None,
) -> int:
    """Save a model with its weight matrices in 4 or 8 bits. In a model that reads images, the encoder gets 8.

    What each kind of quantization would cost:  nano-llama quantize MODEL --compare --data my.txt

    Parameters
    ----------
    to
        int8, int4 (asymmetric) or int4-sym, in groups of 32, rounded to nearest; embedding and head stay at int8. May
        be followed by exceptions:  int4,head=int4,first=int8,*.down_proj.weight=int8
    out
        The folder to write. Must be new.
    compare
        Write no folder, but a table: bits per weight, size, perplexity, and how far the model is from its weights in
        float32 (KL divergence), for each --to, or int8, int4 and int4-sym.
    data
        The text to compare on: a file, a folder, stdlib, shakespeare or classic-books.
    split
        val: what training on that text would not see (the last 10% of a single text). train: the rest.
    tokens
        Predict at most this many.
    context
        Tokens per window. By default the model's context up to 2,048.
    """
    screen = Screen(output)
    if compare:
        if out is not None:
            raise UserError(f"--out {out}: --compare writes no folder.", hint="Leave one of the two out.")
        if data is None:
            raise UserError("--compare needs a text.", hint="For example  --data shakespeare,  or a file of your own.")
        return compare_on_text(screen, model, to, data, split, tokens, context)
    for option, is_given in (
        ("--data", data is not None), ("--split", split != "val"), ("--tokens", tokens != COMPARED_TOKENS),
        ("--context", context is not None),
    ):  # fmt: skip
        if is_given:
            raise UserError(f"{option} belongs to --compare.", hint=f"Add --compare, or leave {option} out.")
    if len(to) > 1:
        raise UserError(
            f"--to {' --to '.join(to)}: a folder has one scheme.",
            hint="Several can be compared:  --compare --data TEXT",
        )
    assert to and out is not None, "dispatch.py has seen to it"
    return save(screen, model, to[0], out)


def save(screen: Screen, model: str, to: str, out: Path) -> int:
    """Write the folder."""
    from nano_llama.formats import reads_images
    from nano_llama.formats.quantization_scheme import Scheme, bits_per_weight

    if out.exists() or out.is_symlink():
        raise UserError(f"--out {out} already exists.", hint="Choose another path, or remove it first.")
    scheme = Scheme.parse(to)
    path = locate_model(model, screen)
    began = time.perf_counter()
    config, weights, kinds, write = (open_with_images if reads_images(path) else open_text)(path, scheme)
    with weights:
        before = sum(weights.nbytes(name) for name in weights)
        tokenizer = find_tokenizer(path, screen)
        screen.say(f"Quantizing {config.num_parameters:,} parameters to {to} ...", style="dim")
        write(out, tokenizer=tokenizer, scheme=to)
    after = sum(file.stat().st_size for file in out.glob("*.safetensors"))
    bits = bits_per_weight(kinds, config)
    counts = {kind: list(kinds.values()).count(kind) for kind in dict.fromkeys(kinds.values())}
    seconds = time.perf_counter() - began
    result = {
        "model": model,
        "out": str(out),
        "scheme": to,
        "bits_per_weight": round(bits, 3),
        "bytes_before": before,
        "bytes": after,
        "matrices": counts,
        "seconds": seconds,
    }
    shown = {
        "written": out,
        "size": f"{size_text(after)} (was {size_text(before)})",
        "matrices": ", ".join(f"{count} x {kind}" for kind, count in counts.items()),
        "bits per weight": f"{bits:.2f}, scales included",
        "took": time_text(seconds),
        "try it": f"nano-llama generate --model {out} --prompt ...",
    }
    screen.result(result, facts(shown))
    return 0


def open_text(path: Path, scheme: "Scheme") -> "Opened":
    """What is quantized: the shape, the weights, {matrix: kind}, and what writes the folder."""
    from nano_llama.formats import open_model
    from nano_llama.formats.quantized import save_quantized

    weights = open_model(path)
    config, kinds = weights.config, scheme.kinds(weights.config)
    return config, weights, kinds, partial(save_quantized, config=config, weights=weights, kinds=kinds)


def open_with_images(path: Path, scheme: "Scheme") -> "Opened":
    """The same of a model that reads images."""
    from nano_llama.formats.image_processor import processor_files
    from nano_llama.formats.vision_folder import open_vision_language, save_vision_language

    config, weights = open_vision_language(path)
    kinds, files = scheme.kinds_with_images(config), processor_files(path)
    save = partial(save_vision_language, config=config, weights=weights, kinds=kinds, extra_files=files)
    return config, weights, kinds, save
