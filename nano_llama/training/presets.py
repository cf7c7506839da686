"""Named recipes: each a small difference from TrainSettings' defaults.

`nano-llama train --presets` lists them with what to expect of them. The shapes of models are in core/presets.py.
Tests: tests/training/test_training_presets.py.
"""

from typing import Any, NamedTuple

from nano_llama.core.errors import UserError


class Expected(NamedTuple):
    """What to expect of a recipe. Computed times assume 40% of the device's peak."""

    time: str
    loss: str  # validation loss, nats per token


TRAINING_PRESETS: dict[str, dict[str, Any]] = {
    "shakespeare-cpu": {
        "data": "shakespeare",
        "tokenizer": "char",
        "model": "char",
        "context": 64,
        "batch_size": 16,  # small: in two minutes the number of updates counts for more than their quality
        "optimizer": "muon",  # ends at 1.587 where adamw ends at 1.719, both after 1,300 steps (dev/LOG.md)
        "lr": 6e-3,
        "max_minutes": 2.0,
        "evaluations": 3,
    },
    "stdlib-quick": {
        "data": "stdlib",
        "tokenizer": "bpe:2048",  # a small vocabulary leaves most of the minute to the layers
        "model": "char",
        "context": 128,
        "batch_size": 8,
        "optimizer": "muon",
        "lr": 3e-3,
        "max_minutes": 1.0,
        "evaluations": 3,
    },
    "shakespeare-gpu": {
        "data": "shakespeare",
        "tokenizer": "char",
        "model": "char",
        "hidden_size": 384,
        "num_hidden_layers": 6,
        "num_attention_heads": 6,
        "intermediate_size": 1024,
        "context": 256,
        "batch_size": 64,
        "optimizer": "muon",
        "lr": 3e-3,
        # A megabyte of text is read 15 times. Longer runs learned it by heart (dev/LOG.md), and in a minute a faster
        # card would read it more often: so steps are counted, and at the last of them the rate is 0.
        "dropout": 0.2,
        "weight_decay": 0.5,
        "max_steps": 900,
        "final_lr": 0.0,
        "evaluations": 12,
        "samples": 1,  # a sample takes longer than the whole evaluation
    },
    "nano": {
        "data": "classic-books",
        "tokenizer": "bpe:4096",
        "model": "nano",
        "context": 512,
        "batch_size": 32,
        "optimizer": "muon",
        "lr": 4e-3,
        "schedule": "wsd",  # any checkpoint of the constant part can be ended by a fall of its own
        "warmup": 0.005,
        "decay": 0.35,
        "final_lr": 0.0,
        "max_steps": 8_855,  # 145 million tokens
        "evaluations": 12,
    },
    "eyes-cpu": {
        "data": "shapes-vqa",
        "init_from": "nano_gpt",
        "tasks": "shape,relation,count,digit,chart,word,word,word,word,word",  # letters take as long as all the rest
        "single_first": 40_000,  # more than 12 minutes show; an hour goes on to all tasks
        "context": 128,
        "batch_size": 16,
        "optimizer": "muon",
        "lr": 2e-3,
        "language_model_lr": 0.15,
        "beta2": 0.98,
        "weight_decay": 0.0,
        "warmup": 0.03,
        "max_minutes": 12.0,
        "evaluations": 4,
        "samples": 4,
    },
    "gpt2-124m-like": {
        "data": "classic-books",
        "tokenizer": "bpe:50257",
        "model": "gpt2",
        "context": 1024,
        "accumulate": 32,  # half a million tokens per step, as GPT-2's size is usually trained
        "lr": 6e-4,
        "beta2": 0.95,
        "max_steps": 2_000,
    },
    "350m": {
        "data": "classic-books",
        "tokenizer": "bpe:49152",
        "model": "350m",
        "context": 2048,
        "accumulate": 16,
        "lr": 5e-4,
        "beta2": 0.95,
        "max_steps": 2_000,
    },
    "1b": {
        "data": "classic-books",
        "tokenizer": "bpe:32000",
        "model": "1b",
        "context": 2048,
        "batch_size": 8,
        "accumulate": 32,
        "activation_checkpointing": "selective",  # fits 8 sequences beside 18 GB of weights and optimizer
        "lr": 4e-4,
        "beta2": 0.95,
        "max_steps": 2_000,
    },
}

EXPECTED: dict[str, Expected] = {
    "shakespeare-cpu": Expected("2 min on 2 CPU cores", "1.56 on a processor with AMX, 1.64 on one without"),
    "stdlib-quick": Expected("1 min on 2 CPU cores", "the quickstart; needs no network"),
    "shakespeare-gpu": Expected(
        "45 s on an H100 or H200, computed", "not run at this length; 1.4836 before. nanoGPT's of this shape: 1.4697"
    ),
    "nano": Expected("4.3 min on an H200 (4.4 h on 2 cores with AMX, computed)", "3.23, the model that ships"),
    "eyes-cpu": Expected("12 min on 2 CPU cores", "colour and side 100%, shape 81 to 86% (nano-llama eval)"),
    "gpt2-124m-like": Expected("1 h on an H100, computed", "not run yet"),
    "350m": Expected("3 h on an H100, computed", "not run yet"),
    "1b": Expected("7 h on an H100, computed", "not run yet"),
}


def training_preset(name: str) -> dict[str, Any]:
    """The settings of a recipe. Raises UserError for an unknown name."""
    if name not in TRAINING_PRESETS:
        raise UserError(f"Unknown training preset {name!r}.", hint=f"Known: {', '.join(TRAINING_PRESETS)}.")
    return dict(TRAINING_PRESETS[name])
