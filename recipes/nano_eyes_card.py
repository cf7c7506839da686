"""nano_eyes's model card, made from results.json alone, so that every figure in it has been measured; and its curve.

nano_eyes_results.py measures the figures. Tests: tests/recipes/test_nano_eyes.py.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from nano_llama.core.figures import GREY, count_ticks, look, panels, save
from nano_llama.core.units import time_text
from nano_llama.core.vision.config import VisionLanguageConfig
from nano_llama.data.vqa import QUESTIONS
from nano_llama.training.plots import made_how
from nano_llama.training.settings import TrainSettings

CARD = """\
---
language: en
license: mit
pipeline_tag: image-text-to-text
tags: [llama, idefics3, shapes-vqa]
---
# nano_eyes

nano_gpt with eyes: {parameters:,} parameters that answer questions about pictures of 64 x 64 pixels. It was trained
with nano-llama-engine in {minutes} on rendered pictures, and ships with its package; `recipes/nano_eyes.py` made these
files and this card, whose figures are those of `results.json`.

```bash
nano-llama generate --model nano_eyes --image FILE --prompt "What colour is the shape?"
nano-llama eval --model nano_eyes --data shapes-vqa        # the table below, on fewer pictures
```

## How good it is
On {pictures:,} pictures of the test split, which training never showed. Each question is asked alone; an answer is
right if greedy decoding writes exactly it. Beside it the same questions about another picture of the same task (who
does not look loses nothing there), and a blind guess:

| question | right | about another picture | by guessing | asked |
|---|---|---|---|---|
{kinds}

Combinations that training never showed, of parts that it did:

| held out | right | about another picture | by guessing | asked |
|---|---|---|---|---|
{groups}

Letters: of the words that are asked for, written at once or spelled, how many stand in their place. Guessing is to say
the same word always, the best one.

The first test pictures whose answers are right, then the first with a wrong one:

![right and wrong answers](answers.png)

## How it was made
| | |
|---|---|
| encoder | {encoder} |
| language model | nano_gpt: {text} |
| tokens an image | {image_seq_len} |
| data | shapes-vqa, tasks {tasks}: rendered on the way, without end |
| pictures | {train_pictures:,}, of which the first {single_first:,} show single shapes |
| steps | {steps:,} of {batch_size} pictures with all their questions, seed {seed} |
| optimizer | {optimizer} for encoder and projector, AdamW for the LLaMA; learning rates {lr:g} and {llama_lr:g} |
| wall time | {minutes} |
| stored | {scheme}: {weights_mib:.2f} MiB, sha256 `{sha256}` |

{note}

![accuracy while training](accuracy.png)

The curve is of 256 pictures that training does not show, of combinations that it does. What storing it in
few bits changes: most of all {worst_name}, {worst_trained:.1%} as trained and {worst_stored:.1%} as stored; on average
over the rows above {mean:+.2f} points.

To repeat it: `python recipes/nano_eyes.py`. By the clock, a faster machine sees more pictures.

## The limits
It knows the questions of `nano_llama/data/vqa/questions.py`, word for word, and pictures like those that are rendered
there: one of eight colours, one of eight shapes, digits, made-up words of four to six letters, bar charts. About a
photograph it answers with the same words, and they mean nothing. The digits are those of scikit-learn (Alpaydin and
Kaynak 1998); everything else is drawn by this project. The weights are under the repository's MIT license.
"""


def make_card(results: Mapping[str, Any]) -> str:
    """The card's text from nano_eyes_results.measure's figures."""
    settings, config = results["settings"], results["config"]
    vision, text = config["vision_config"], config["text_config"]
    kinds = [name for name in results["accuracy"] if name in QUESTIONS or name.endswith("letters")]
    groups = [name for name in results["accuracy"] if name not in kinds]
    stored, trained = results["accuracy"], results["as_trained"]
    worst = max(stored, key=lambda name: abs(stored[name] - trained[name]))
    lr = settings["lr"]
    return CARD.format(
        kinds="\n".join(row(results, name) for name in kinds),
        groups="\n".join(row(results, name) for name in groups) or "| none | | | | |",
        encoder=f"{vision['num_hidden_layers']} layers, width {vision['hidden_size']}, "
        f"patches of {vision['patch_size']} x {vision['patch_size']} pixels",
        text=f"{text['num_hidden_layers']} layers, width {text['hidden_size']}",
        tasks=settings["tasks"].replace(",", ", "), single_first=settings["single_first"],
        batch_size=settings["batch_size"], seed=settings["seed"], optimizer=settings["optimizer"].capitalize(),
        lr=lr, llama_lr=lr * settings["language_model_lr"], minutes=time_text(results["elapsed_s"]),
        weights_mib=results["weights_bytes"] / 2**20,
        mean=100 * sum(stored[name] - trained[name] for name in stored) / len(stored),
        worst_name=worst, worst_trained=trained[worst], worst_stored=stored[worst],
        **{name: results[name] for name in ("parameters", "pictures", "image_seq_len", "train_pictures", "steps",
                                            "scheme", "sha256", "note")},
    )  # fmt: skip


def row(results: Mapping[str, Any], name: str) -> str:
    shares = (f"{results[part][name]:.1%}" for part in ("accuracy", "control", "chance"))
    text = f"{name}: {QUESTIONS[name].text}" if name in QUESTIONS else name.replace("_", " ")
    return f"| {text} | {' | '.join(shares)} | {results['asked'][name]:,} |"


PANELS = {  # what is asked about one kind of picture, and about the same part of it
    "one shape": ("colour", "shape", "side", "height"),
    "two shapes": ("left_right", "above_below", "colour_of"),
    "how many": ("count", "count_of"),
    "digits and bars": ("digit", "bars", "tallest", "shortest"),
    "words, whole": ("word", "spelling", "lines"),
    "letters of words": ("letters", "word_letters", "spelling_letters", "lines_letters"),
}


def caption_of(config: VisionLanguageConfig, settings: TrainSettings, what: str) -> str:
    """Of a picture beside the card: what it shows, of which model, its shapes, its seed."""
    return "; ".join([what, f"nano_eyes: {config.num_parameters:,} parameters", *made_how(config, settings)])


def draw_curve(
    rows: Sequence[Mapping[str, Any]], config: VisionLanguageConfig, settings: TrainSettings, path: Path
) -> None:
    """The shares of right answers by kind, at each evaluation of the run."""
    measured = [row for row in rows if row.get("val_accuracy")]
    names = dict.fromkeys(name for row in measured for name in row["val_accuracy"])
    others = set(names).difference(*PANELS.values())
    grouped = PANELS | {"others": tuple(name for name in names if name in others)}
    shown = {title: [name for name in group if name in names] for title, group in grouped.items()}
    shown = {title: group for title, group in shown.items() if group} or {"nothing was evaluated": []}
    per_step = settings.batch_size * settings.accumulate
    with look():
        figure, axes = panels(list(shown), min(3, len(shown)), width=4.2, height=3.7, dpi=120)
        for ax, group in zip(axes, shown.values(), strict=True):
            for place, name in enumerate(group):
                points = [(row["step"] * per_step, 100 * row["val_accuracy"][name]) for row in measured]
                width = max(4.0 - 0.8 * place, 1.0)  # one may lie on another
                label = name.removesuffix("_letters").replace("_", " ")
                ax.plot(*zip(*points, strict=True), marker="o", linewidth=width, label=label)
            ax.axvline(settings.single_first, color=GREY, linestyle="--", linewidth=1)
            ax.set(xlabel="pictures that training has shown", ylabel="right answers, %", ylim=(-3, 103))
            ax.set_xlim(left=0)
            if group:
                ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=4, columnspacing=0.9, handlelength=1.2)
        count_ticks(*axes)
        what = "each point is of 256 pictures that training does not show; up to the dashed line it shows single shapes"
        save(figure, path, caption_of(config, settings, what))
    if path.suffix == ".png":
        with Image.open(path) as drawn:  # which has few colours: as a palette it takes a third of the bytes
            drawn.convert("RGB").quantize(256).save(path, optimize=True)
