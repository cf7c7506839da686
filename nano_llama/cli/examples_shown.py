"""What `nano-llama finetune` shows of its data before a step: counts, lengths, what is cut, and what is learned.

Tests: tests/cli/test_examples_shown.py.
"""

from typing import Any

from rich.text import Text

from nano_llama.cli.common import Screen, has_colours, printable, table
from nano_llama.core.units import shortened_text
from nano_llama.data.sft.dataset import ExampleDataset
from nano_llama.data.sft.examples import contents
from nano_llama.data.sft.sequences import Cut
from nano_llama.data.sft.summary import Sample, Summary, summarize
from nano_llama.training.finetune.settings import FinetuneSettings

BEGIN, END = "⟦", "⟧"  # around what is learned, where there are no colours
LEARNED, READ = "bold green", "dim"
CHARACTERS = 400  # of a piece of a sample; longer ones are cut in the middle
NAMED = 3  # examples that are named among those that lose something


def summaries(settings: FinetuneSettings, dataset: ExampleDataset) -> dict[str, Summary]:
    """Of each split."""
    packed = settings.document_mask
    batches = {
        "train": dataset.training_batches(settings.batch_size, settings.context, settings.seed, packed),
        "val": dataset.validation_batches(settings.batch_size, settings.context, packed),
    }
    splits = {"train": dataset.train, "val": dataset.val}
    return {name: summarize(splits[name].encoded, batches[name], dataset.tokenizer) for name in splits}


def examples_json(dataset: ExampleDataset, found: dict[str, Summary]) -> dict[str, Any]:
    """For --json."""
    examples = dataset.examples
    counted = {"train": contents(examples.train), "val": contents(examples.val)}
    return {
        **{
            name: {
                "examples": summary.examples,
                "messages": dict(counted[name]),
                "sequences": summary.sequences,
                "tokens": summary.tokens,
                "learned_tokens": summary.learned_tokens,
                "lengths": {f"{quantile:g}": length for quantile, length in summary.lengths.items()},
                "rows": summary.rows,
                "fill": summary.fill,
                "cut": [vars(cut) for cut in summary.cut],
                "left_out": [vars(cut) for cut in summary.left_out],
                "samples": [{"where": one.where, "pieces": one.pieces} for one in summary.samples],
            }
            for name, summary in found.items()
        },
        "unread_fields": dict(examples.unread),
        "unread_files": examples.left_out,
    }


def show_examples(
    screen: Screen, settings: FinetuneSettings, dataset: ExampleDataset, found: dict[str, Summary], result: bool = False
) -> None:
    """result: what is shown is what was asked for, and goes to stdout; otherwise it is a remark."""
    if screen.quiet and not result:
        return
    console = screen.out if result else screen.err
    shown: list[Any] = [table(("examples", "train", "val"), count_rows(settings, dataset, found))]
    if notes := list(remarks(dataset, found)):
        shown += ["", *notes]
    coloured = has_colours(console)
    mark = "in green" if coloured else f"between {BEGIN} and {END}"
    shown += ["", f"Samples; what is learned is {mark}:"]
    for sample in found["train"].samples:
        shown += ["", f"{sample.where}:", marked(sample, coloured)]
    if result:
        screen.result(examples_json(dataset, found), *shown)
    else:
        for item in shown:
            console.print(printable(item) if isinstance(item, str) else item)


def count_rows(settings: FinetuneSettings, dataset: ExampleDataset, found: dict[str, Summary]) -> list[list[Any]]:
    train, val = found["train"], found["val"]
    counted = [contents(split) for split in (dataset.examples.train, dataset.examples.val)]
    rows: list[list[Any]] = [["in all", train.examples, val.examples]]
    rows += [[f"  {name}", *(one[name] for one in counted)] for name in sorted({*counted[0], *counted[1]})]
    if (train.sequences, val.sequences) != (train.examples, val.examples):
        rows.append(["sequences", train.sequences, val.sequences])
    lengths = zip(train.lengths.values(), val.lengths.values(), strict=True)
    words = ("shortest, tokens", "median", "90% are at most", "longest")
    rows += [[name, *pair] for name, pair in zip(words, lengths, strict=True)]
    rows += [
        ["tokens", train.tokens, val.tokens],
        ["  learned", *(f"{one.learned_tokens:,} ({one.learned_tokens / one.tokens:.0%})" for one in (train, val))],
        [f"rows of {settings.context:,}", *(f"{one.rows:,} ({one.fill:.0%} full)" for one in (train, val))],
    ]
    return rows


def remarks(dataset: ExampleDataset, found: dict[str, Summary]) -> list[str]:
    """What is not used of the data, in sentences."""
    notes = []
    cut = [*found["train"].cut, *found["val"].cut]
    left_out = [*found["train"].left_out, *found["val"].left_out]
    if cut:
        notes.append(f"{_examples(cut)} without the last answers, which do not fit the context: {_named(cut)}.")
    if left_out:
        notes.append(f"{_examples(left_out)} without an answer that fits the context left out: {_named(left_out)}.")
    if unread := dataset.examples.unread:
        notes.append("Fields that are not read: " + ", ".join(f"{name} ({n:,})" for name, n in unread.items()) + ".")
    if files := dataset.examples.left_out:
        more = f" and {len(files) - NAMED:,} more" if len(files) > NAMED else ""
        notes.append(f"Files that are not read: {', '.join(files[:NAMED])}{more}.")
    return notes


def _examples(cuts: list[Cut]) -> str:
    return f"{len(cuts):,} example{'s' * (len(cuts) > 1)}"


def _named(cuts: list[Cut]) -> str:
    named = ", ".join(f"{cut.where} ({cut.learned:,} learned tokens)" for cut in cuts[:NAMED])
    return named + (", ..." if len(cuts) > NAMED else "")


def marked(sample: Sample, coloured: bool) -> Text:
    """A sample as one text, what is learned in it in colour or in brackets."""
    text = Text()
    for piece, learned in sample.pieces:
        shown = printable(shortened_text(piece, CHARACTERS))
        if learned and not coloured:
            shown = f"{BEGIN}{shown}{END}"
        text.append(shown, LEARNED if learned else READ)
    return text
