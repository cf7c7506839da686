"""`nano-llama eval`: how well a model predicts text it has not seen, beside other models and compressors; and tasks.

What a validation loss is: training/evaluation.py. Compressors and tasks: evaluation/.
Tests: tests/cli/test_eval.py.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from nano_llama.cli.common import Count, Output, Screen, facts, table
from nano_llama.cli.models import ModelPath, locate_model
from nano_llama.core.errors import UserError, import_extra
from nano_llama.core.units import time_text
from nano_llama.data.sources import Split

EXAMPLE = "nano_gpt --data shakespeare"  # of dispatch.py


def run(
    model: ModelPath,
    *,
    adapter: Annotated[Path | None, Parameter(show_default=False)] = None,
    data: str | None = None,
    context: Annotated[Count | None, Parameter(show_default=False)] = None,
    batch_size: Count = 16,
    device: str = "auto",
    split: Literal["val", "train"] = "val",
    beside: tuple[str, ...] = (),
    tasks: tuple[str, ...] = (),
    task_folder: Annotated[Path | None, Parameter(show_default=False)] = None,
    limit: Annotated[Count | None, Parameter(show_default=False)] = None,
    pictures: Annotated[Count | None, Parameter(show_default=False)] = None,
    output: Output | None = None,
) -> int:
    """Loss, perplexity and bits per byte of a model on the validation split of a text. Lower is better.

    The whole split is read in consecutive windows of the context, and every token counts once. Bits per byte can be
    compared across tokenizers and with compressors; loss and perplexity only between models with the same tokenizer.

    Parameters
    ----------
    adapter
        An adapter of the model, in PEFT's format: a folder with adapter_config.json.
    data
        A file, a folder, stdlib, shakespeare or classic-books. By default what the run in --model was trained on.
        shapes-vqa: the accuracy of a model that reads images, on pictures that training never showed: answers that
        are right as a whole, and letters of words that stand in their place.
    context
        Tokens per window. By default the run's own, or the model's context up to 2,048.
    batch_size
        Windows per forward pass. This changes memory and speed, not the result.
    device
        auto, cpu, cuda, cuda:1 or mps.
    split
        val: what training never saw (the last 10% of a single text). train: the rest.
    beside
        Compare with xz, bzip2 or another model on the same bytes; may be given several times.
    tasks
        Run this task of lm-evaluation-harness instead; may be given several times. A task whose data
        cannot be downloaded is skipped.
    task_folder
        Tasks of your own: a folder of the harness's .yaml files.
    limit
        At most this many examples per task, to try it out.
    pictures
        Number of shapes-vqa pictures to ask about. By default 1,000: about half a minute on two cores.
    """
    screen = Screen(output)
    import_extra("torch", "train", "nano-llama eval")
    if tasks:
        if adapter is not None:
            raise UserError("--tasks take a whole model.", hint="Merge it with its adapter:  nano-llama merge")
        if data is not None or beside or context is not None:
            raise UserError("--tasks bring their own data.", hint="Leave --data, --beside and --context out.")
        return run_tasks(screen, model, tasks, task_folder, limit, device, batch_size)
    if task_folder is not None or limit is not None:
        raise UserError("--task-folder and --limit belong to --tasks.", hint="Name a task, or leave them out.")
    from nano_llama.cli.train import live_display
    from nano_llama.evaluation.compressors import COMPRESSORS
    from nano_llama.formats import reads_images
    from nano_llama.training.picture_settings import PICTURES
    from nano_llama.vol2_torch.evaluate import evaluate_model

    path = locate_model(model, screen)
    if reads_images(path):
        for option, is_given in (
            ("--adapter", adapter is not None), ("--context", context is not None),
            ("--split", split != "val"), ("--beside", bool(beside)),
        ):  # fmt: skip
            if is_given:
                raise UserError(f"{option} is for text; {model} reads images.", hint=f"Leave {option} out.")
        return run_pictures(screen, path, model, data, device, pictures)
    if pictures is not None or data == PICTURES:
        raise UserError(
            f"{model} does not read images.", hint="Train one that does:  nano-llama train --preset eyes-cpu"
        )
    others_at = {name: None if name in COMPRESSORS else locate_model(name, screen) for name in beside}
    progress = live_display(screen)
    try:
        found = evaluate_model(
            path,
            data,
            adapter=adapter,
            split=split,
            context=context,
            batch_size=batch_size,
            device=device,
            callback=progress,
        )
    finally:
        progress.ended()
    shown = {
        "loss": f"{found.loss:.4f} nats per token",
        "perplexity": f"{found.perplexity:,.2f}",
        "bits per byte": f"{found.bits_per_byte:.4f}",
        "tokens": found.tokens,
        "bytes of text": found.bytes,
        "took": f"{time_text(found.seconds)} ({found.tokens / found.seconds:,.0f} tokens/s)",
    }
    others = compare(screen, path, data, split, others_at, batch_size, device) if beside else {}
    grid = table(
        ("", "bits per byte"),
        [(name, f"{bits:.4f}") for name, bits in sorted({model: found.bits_per_byte, **others}.items(), key=by_bits)],
    )
    result = {"model": model, "adapter": adapter, "data": data, "split": split, **found.to_json(), "beside": others}
    if others:
        screen.result(result, facts(shown), "", grid)
    else:
        screen.result(result, facts(shown))
    return 0


def by_bits(item: tuple[str, float]) -> float:
    return item[1]


def compare(
    screen: Screen, model: Path, data: str | None, split: Split, beside: Mapping[str, Path | None], batch_size: int,
    device: str,
) -> dict[str, float]:  # fmt: skip
    """Bits per byte of each of `beside` on the same split: a model's path, None of a compressor."""
    from nano_llama.evaluation.compressors import compressed_bits_per_byte, split_text
    from nano_llama.vol2_torch.evaluate import evaluate_model, find_run_settings

    run = find_run_settings(model)
    source = data if data is not None or run is None else run.data
    assert source is not None, "evaluate_model has refused a model without data"
    others: dict[str, float] = {}
    for name, path in beside.items():
        screen.say(f"Comparing with {name} ...", style="dim")
        if path is None:
            others[name] = compressed_bits_per_byte(name, split_text(source, split))
        else:
            others[name] = evaluate_model(
                path, source, split=split, batch_size=batch_size, device=device
            ).bits_per_byte  # fmt: skip
    return others


def run_tasks(
    screen: Screen, model: str, tasks: tuple[str, ...], folder: Path | None, limit: int | None, device: str, size: int
) -> int:
    """The table of lm-evaluation-harness's tasks."""
    from nano_llama.evaluation import harness

    path = locate_model(model, screen)
    results = harness.run_tasks(path, tasks, task_folder=folder, limit=limit, device=device, batch_size=size)
    lines: list[tuple[Any, ...]] = []
    for result in results:
        if result.skipped is not None:
            lines.append((result.task, f"skipped: {result.skipped}", "", ""))
        for name, value in result.metrics.items():
            if not name.endswith("_stderr"):
                error = result.metrics.get(f"{name}_stderr")
                lines.append((result.task, name, f"{value:.4f}", "" if error is None else f"± {error:.4f}"))
    grid = table(("task", "metric", "value", ""), lines)
    screen.result({"model": model, "limit": limit, "tasks": [asdict(result) for result in results]}, grid)
    return 0


def run_pictures(
    screen: Screen, path: Path, model: str, data: str | None, device: str, num_pictures: int | None
) -> int:
    """The accuracies of a model that reads images, with its run's tasks, or all."""
    from nano_llama.data.vqa import TASKS, ShapesVQA
    from nano_llama.data.vqa.batches import PictureRows
    from nano_llama.evaluation.vqa import NUM_PICTURES, evaluate_pictures
    from nano_llama.tokenizer import Tokenizer
    from nano_llama.vol2_torch.device import resolve_device
    from nano_llama.vol2_torch.evaluate import find_run_settings
    from nano_llama.vol2_torch.vision import VisionLanguageModel

    if data not in (None, ShapesVQA.name):
        raise UserError(f"--data {data}: {model} reads images.", hint=f"Evaluate it on {ShapesVQA.name}.")
    settings = find_run_settings(path)
    source = ShapesVQA(settings.task_names if settings and settings.from_pictures else TASKS)
    loaded = VisionLanguageModel.from_pretrained(path, device=resolve_device(device)).eval()
    rows = PictureRows(Tokenizer.from_pretrained(path), loaded.config.image_seq_len)
    screen.say("Asking about pictures that training never showed ...", style="dim")
    found = evaluate_pictures(loaded, rows, source, num_pictures or NUM_PICTURES)
    percent = "{:.1%}".format
    columns = found.accuracy, found.control, found.chance
    lines = [
        (name, *(percent(shares[name]) if name in shares else "" for shares in columns)) for name in found.accuracy
    ]
    screen.result(
        {"model": model, "data": ShapesVQA.name, "tasks": source.tasks, **found.to_json()},
        table(("right", "", "about another picture", "by guessing"), lines),
    )
    return 0
