"""`nano-llama eval`: how well a model predicts a text it has not seen.

Not here: what a validation loss is (core/training/evaluation.py). Tests: tests/cli/test_eval.py.
"""

from typing import Annotated, Literal

from cyclopts import Parameter

from nano_llama.cli.common import Count, Output, Screen, facts, time_text
from nano_llama.cli.models import ModelPath, locate_model
from nano_llama.core.errors import import_extra


def run(
    *,
    model: ModelPath,
    data: str | None = None,
    context: Annotated[Count | None, Parameter(show_default=False)] = None,
    batch_size: Count = 16,
    device: str = "auto",
    split: Literal["val", "train"] = "val",
    output: Output | None = None,
) -> int:
    """Loss, perplexity and bits per byte of a model on the validation split of a text. Lower is better.

    The split is read whole, in consecutive windows of the context, and every token counts once. Bits per byte compare
    across tokenizers, and with a compressor's; loss and perplexity only between models with the same tokens.

    Parameters
    ----------
    data
        A file, a folder, stdlib, shakespeare or classic-books. For the folder of a run, by default what it learned.
    context
        Tokens a window. By default the run's own, or the model's context up to 2,048.
    batch_size
        Windows at a time. It changes memory and speed, not the result.
    device
        auto, cpu, cuda, cuda:1 or mps.
    split
        val: what training never saw (the last 10% of a single text). train: the rest.
    """
    screen = Screen(output)
    import_extra("torch", "train", "nano-llama eval")
    from nano_llama.cli.train import watcher
    from nano_llama.vol2_torch.evaluate import evaluate_model

    path = locate_model(model, screen)
    progress = watcher(screen)
    try:
        found = evaluate_model(
            path, data, split=split, context=context, batch_size=batch_size, device=device, watcher=progress
        )
    finally:
        progress.ended()
    shown = {
        "loss": f"{found.loss:.4f} nats a token",
        "perplexity": f"{found.perplexity:,.2f}",
        "bits per byte": f"{found.bits_per_byte:.4f}",
        "tokens": found.tokens,
        "bytes of text": found.bytes,
        "took": f"{time_text(found.seconds)} ({found.tokens / found.seconds:,.0f} tokens a second)",
    }
    screen.result({"model": model, "data": data, "split": split, **found.to_json()}, facts(shown))
    return 0
