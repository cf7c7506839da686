"""nano_gpt's model card, made from results.json alone, so that every figure in it has been measured.

nano_gpt_results.py measures the figures. Tests: tests/recipes/test_nano_gpt.py.
"""

from typing import Any

CARD = """\
---
language: en
license: mit
library_name: transformers
pipeline_tag: text-generation
tags: [llama, books]
---
# nano_gpt

A LLaMA of {parameters:,} parameters that dreams of old novels. It was trained with nano-llama-engine and ships with
its package; `recipes/nano_gpt.py` made these files and this card, whose figures are those of `results.json`.

```bash
nano-llama generate --prompt "Once upon a time"
nano-llama verify nano_gpt        # three volumes, transformers and llama.cpp: the same logits
```

## How good it is
Bits per byte on {val_books} held-out books ({val_mb:.1f} MB, in none of the training files), whole, in non-overlapping
windows of {context} tokens; lower is better:

| | bits per byte |
|---|---|
{table}

SmolLM2-135M is {smollm_times:.0f} times as large and was trained on about 2 trillion tokens; it was measured with a
context of 1,024. The compressors saw the same bytes in one piece.

The same books through every program that runs these files, since the claim is that it is one model:

| | bits per byte |
|---|---|
{programs}

Quantized, with weights rounded to nearest, on the first {part:,} tokens of the held-out books:

| | bits per weight | file | bits per byte |
|---|---|---|---|
{quantized}

## How it was made
| | |
|---|---|
| shape | {layers} layers, width {width}, {heads} heads of 64, MLP {mlp}, tied embedding |
| tokenizer | byte-level BPE of {vocab:,} tokens, trained on the same books |
| data | {train_books} books, {train_mb:.0f} MB, {train_tokens:.1f} million tokens |
| trained on | {tokens:.1f} million tokens, {epochs:.1f} times the books |
| steps | {steps} of {batch} x {context} tokens, seed {seed} |
| optimizer | Muon for the layers' matrices, AdamW for the rest; peak learning rate {lr:g} |
| schedule | {schedule} |
| precision | matrix products in bfloat16, weights and optimizer in float32 |
| cost | {flops:.2e} FLOPs; {wall} of wall time |

{note}

![loss curve](loss.png)

To repeat it on the same books: `python recipes/nano_gpt.py`, in minutes on a GPU, in hours on a CPU, where the same
seed, data and machine give the same losses.

## What this much training gives, and what more would
{tokens:.0f} million tokens of old books teach spelling, grammar, the shape of dialogue and the furniture of a novel.
They do not teach what happens next: each sentence follows from the one before, a scene drifts within a paragraph, and
nobody keeps a name or a purpose for long. It costs minutes, which is the point. You can do it again, and better:
- **Longer.** `--set max_steps=35000` reads the books six times, and the schedule stretches with it. A text that repeats
  teaches less each time.
- **More text.** `--data FOLDER`, of .txt, .jsonl or .parquet files: new text is worth more than another reading.
- **Larger.** `--set num_hidden_layers=12 --set hidden_size=512 --set num_attention_heads=8 --set num_key_value_heads=8
  --set intermediate_size=1408` is a model of about 40 million parameters; it wants at least 20 tokens per parameter
  (Hoffmann et al. 2022, arXiv 2203.15556), more than these books hold.

## The books, and the limits they set
The books are in the public domain in the United States and come from the collection mlschmitt/classic-books-markdown
at a fixed commit; `data/classic_books.csv` in the package lists them with checksums. The package contains none of
the books, and the weights are under the repository's MIT license.

They are old books: the model has their language, their prejudices about women, peoples and classes, and nothing of the
last hundred years. It knows no facts, follows no instructions, and loses track of who is who after a few sentences.
Greedy decoding repeats itself endlessly without a repetition penalty (`--temperature 0 --repetition-penalty
{penalty:g}`); sampling is better. It is for learning how such a model works, and for nothing else.

## Samples
Not selected: the prompts of `nano_llama/evaluation/samples.py` in their order, the seed is the sample's number,
temperature {temperature:g}, top-p {top_p:g}, {new_tokens} new tokens, Volume 1 in float32. The last two are
greedy, without and with a repetition penalty.

{samples}

### What they repeat
The longest passage of each sample that occurs in the training text, token for token (8 tokens or more):

| sample | tokens | passage |
|---|---|---|
{matches}
"""
SMOLLM2 = {"parameters": 134_515_008, "bits_per_byte": 1.163}  # measured on the same books


def make_card(results: dict[str, Any]) -> str:
    """The card's text from nano_gpt_results.measure's figures."""
    data, config, settings = results["data"], results["config"], results["settings"]
    bits = {"nano_gpt": results["validation"]["bits_per_byte"], **results["compressors"]}
    bits["SmolLM2-135M"] = SMOLLM2["bits_per_byte"]
    return CARD.format(
        parameters=results["parameters"],
        val_books=data["val_books"],
        val_mb=data["val_bytes"] / 1e6,
        context=settings["context"],
        table="\n".join(f"| {name} | {value:.3f} |" for name, value in sorted(bits.items(), key=lambda item: item[1])),
        smollm_times=SMOLLM2["parameters"] / results["parameters"],
        part=results["quantized_tokens"],
        quantized="\n".join(
            f"| {name} | {row['bits_per_weight']:.2f} | {row['bytes'] / 1e6:.1f} MB | {row['bits_per_byte']:.4f} |"
            for name, row in results["quantized"].items()
        ),
        layers=config["num_hidden_layers"],
        width=config["hidden_size"],
        heads=config["num_attention_heads"],
        mlp=config["intermediate_size"],
        vocab=config["vocab_size"],
        train_books=data["train_books"],
        train_mb=data["train_bytes"] / 1e6,
        train_tokens=data["train_tokens"] / 1e6,
        programs="\n".join(f"| {name} | {value:.4f} |" for name, value in results["programs"].items()),
        tokens=results["tokens"] / 1e6,
        epochs=results["tokens"] / data["train_tokens"],
        steps=results["steps"],
        batch=settings["batch_size"],
        seed=settings["seed"],
        lr=settings["lr"],
        schedule=results["schedule"],
        flops=results["flops"],
        wall=wall_time(results["hours"]),
        note=results["note"],
        temperature=results["sampling"]["temperature"],
        top_p=results["sampling"]["top_p"],
        new_tokens=results["sampling"]["new_tokens"],
        penalty=results["samples"][-1]["repetition_penalty"],
        samples="\n\n".join(map(sample_text, results["samples"])),
        matches="\n".join(map(match_line, results["samples"])),
    )


def wall_time(hours: float) -> str:
    return f"{hours:.1f} hours" if hours >= 1 else f"{60 * hours:.1f} minutes"


def name_of(sample: dict[str, Any]) -> str:
    if sample["seed"] is not None:
        return f"seed {sample['seed']}"
    penalty = sample["repetition_penalty"]
    return "greedy" if penalty == 1.0 else f"greedy, repetition penalty {penalty:g}"


def sample_text(sample: dict[str, Any]) -> str:
    """A sample as a quotation with the prompt in bold."""
    whole = f"**{sample['prompt'].strip()}**{sample['text']}"
    return f"**{name_of(sample)}**\n\n" + "\n".join(f"> {line}".rstrip() for line in whole.splitlines())


def match_line(sample: dict[str, Any]) -> str:
    """The row of a sample in the table of repetitions."""
    match = sample["longest_match"]
    if match is None:
        return f"| {name_of(sample)} | under 8 | |"
    passage = " ".join(match["text"].split()).replace("|", "\\|")
    return f"| {name_of(sample)} | {match['tokens']} | {passage} ({match['book']}) |"
