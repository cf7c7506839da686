"""`nano-llama quantize MODEL --compare --data TEXT`: what each scheme costs, in a table.

What is computed, and by what: verify/quantization.py. Tests: tests/cli/test_quantize_compare.py.
"""

from collections.abc import Sequence

from nano_llama.cli.common import Screen, table
from nano_llama.cli.models import locate_model
from nano_llama.core.errors import UserError
from nano_llama.core.units import plural, size_text
from nano_llama.data.sources import Split

COMPARED_TOKENS = 4096
MAX_CONTEXT = 2048  # by default, as of eval


def compare_on_text(
    screen: Screen, model: str, to: Sequence[str], data: str, split: Split, most_tokens: int, context: int | None
) -> int:
    """Print the table, or the same as JSON."""
    from nano_llama.cli.train import live_display
    from nano_llama.data.prepare import prepare
    from nano_llama.formats import open_text_model, reads_images
    from nano_llama.tokenizer import Tokenizer
    from nano_llama.verify.quantization import SCHEMES, compare_schemes, stored_blocks

    path = locate_model(model, screen)
    if reads_images(path):
        raise UserError(f"--compare measures on a text; {model} reads images.", hint="Leave --compare out.")
    schemes = to or SCHEMES
    with open_text_model(path) as weights:
        longest, parameters, stored = (
            weights.config.max_position_embeddings, weights.config.num_parameters, stored_blocks(weights)
        )  # fmt: skip
    context = context or min(longest, MAX_CONTEXT)
    if context > longest:
        raise UserError(f"--context {context} is longer than the model's {longest} positions.")
    progress = live_display(screen)
    try:
        dataset = prepare(data, Tokenizer.from_pretrained(path), progress=progress.preparing)
        tokens = dataset.val if split == "val" else dataset.train
        if tokens.num_tokens < 2:
            have = plural(tokens.num_tokens, "token")
            raise UserError(f"{data}: the {split} split has {have}, too few to predict one.", hint="Give more text.")
        counted = min(most_tokens, tokens.num_tokens - 1)
        screen.say(f"Loading {parameters:,} parameters in float32, and as {', '.join(schemes)} ...", style="dim")
        costs = compare_schemes(
            path,
            schemes,
            tokens,
            tokens.num_bytes,
            context=context,
            most_tokens=most_tokens,
            on_part=lambda done: progress.evaluating(done, counted),
        )
    finally:
        progress.ended()
    rows = [cost.to_json() for cost in costs]
    result = {
        "model": model, "data": data, "split": split, "tokens": counted, "context": context,
        "stored_blocks": stored, "schemes": rows,
    }  # fmt: skip
    grid = table(
        ("", "bits/\nweight", "size", "perplexity", "mean KL", "KL,\n99%", "same top\ntoken"),
        [
            (
                cost.scheme,
                f"{cost.bits_per_weight:.2f}",
                size_text(cost.nbytes),
                f"{cost.perplexity:,.2f}" + error(cost.perplexity * cost.loss_change.error, 2),
                f"{cost.divergence.mean_kl.mean:.5f}" + error(cost.divergence.mean_kl.error, 5),
                f"{row['kl_99']:.4f}",
                f"{cost.divergence.same_choice:.1%}",
            )
            for cost, row in zip(costs, rows, strict=True)
        ],
    )
    screen.result(result, grid, "", explanation(data, split, counted, context, stored))
    return 0


def error(value: float, decimals: int) -> str:
    """What stands behind a figure whose standard error is known and not 0, as float32's from itself is."""
    return f" ± {value:,.{decimals}f}" if value > 0 else ""


def explanation(data: str, split: Split, tokens: int, context: int, stored: dict[str, int]) -> str:
    """What the columns are, and what they do not show."""
    lines = [
        f"Text: {plural(tokens, 'token')} of the {split} split of {data}, in windows of {context:,}.",
        "KL: how far the distribution of the next token is from float32's, in nats: the mean ± its standard error, and"
        " what 99% of the tokens stay below. Perplexity: ± the standard error of its difference from float32's; a"
        " difference of that size is noise. Same top token: how often both find the same token likeliest.",
        "Computed as generate does: where weights have 4 or 8 bits, activations have 8, keys and values are bfloat16.",
    ]
    if stored:
        kinds = ", ".join(f"{count} x {kind}" for kind, count in stored.items())
        lines.append(
            f"The file itself is quantized ({kinds}); float32 here means the weights that it stands for. What was lost"
            " when it was made is not seen here, and a scheme that stores the same blocks again shows the cost of"
            " activations alone."
        )
    return "\n".join(lines)
