"""Every figure of nano_gpt's card, measured: its loss, its size quantized, samples and what they repeat.

nano_gpt_card.py puts them into words. Tests: tests/recipes/test_nano_gpt.py.
"""

import tempfile
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from nano_llama.core.loss import IGNORE_INDEX
from nano_llama.data.batches import ArrayTokens
from nano_llama.data.dataset import Dataset
from nano_llama.data.prepare import prepare
from nano_llama.evaluation.compressors import COMPRESSORS, compressed_bits_per_byte, split_text
from nano_llama.evaluation.memorisation import longest_matches
from nano_llama.evaluation.samples import NEW_TOKENS, TEMPERATURE, TOP_P, draw_samples
from nano_llama.formats import open_weights, read_config
from nano_llama.formats.quantization_scheme import Scheme, bits_per_weight
from nano_llama.formats.quantized import save_quantized
from nano_llama.tokenizer import Tokenizer
from nano_llama.training.evaluation import evaluate_split
from nano_llama.training.flops import flops_per_token
from nano_llama.training.metrics import read_metrics
from nano_llama.training.schedule import DECAY
from nano_llama.training.settings import TrainSettings
from nano_llama.verify.divergence import log_softmax
from nano_llama.verify.volumes import OTHERS, VOLUMES, Forward
from nano_llama.vol2_torch.evaluate import eval_loss_sum
from nano_llama.vol2_torch.model import Llama

SCHEMES = ("int8", "int4")
PART = 32_768  # tokens on which quantized variants are compared


def measure(folder: Path, run: Path, new_tokens: int = NEW_TOKENS) -> dict[str, Any]:
    """Measure the released model in `folder`, which `run` trained, on the validation split of the run's data."""
    settings, config = TrainSettings.load(run / "train.json"), read_config(folder)
    rows = read_metrics(run / "metrics.jsonl")
    last = rows[-1]
    dataset = prepare(settings.data, Tokenizer.from_pretrained(folder))
    text = split_text(settings.data)
    bits = through_every_program(folder, dataset, settings.context)
    return {
        "parameters": config.num_parameters,
        "config": config.to_hf_dict(),
        "weights_bytes": (folder / "model.safetensors").stat().st_size,
        "settings": {key: value for key, value in settings.to_json().items() if key != "data"},
        "steps": last["step"],
        "schedule": schedule_in_words(settings, last["step"]),
        "tokens": last["tokens"],
        "hours": last["elapsed_s"] / 3600,
        "flops": last["tokens"] * flops_per_token(config, settings.context),
        "data": {
            "train_tokens": dataset.train.num_tokens, "train_bytes": dataset.train.num_bytes,
            "train_books": dataset.train.num_documents, "val_tokens": dataset.val.num_tokens,
            "val_bytes": dataset.val.num_bytes, "val_books": dataset.val.num_documents,
        },
        "validation": {"bits_per_byte": bits[VOLUMES[0].name], "of_the_run": last["val_bits_per_byte"]},
        "programs": bits,
        "compressors": {name: compressed_bits_per_byte(name, text) for name in COMPRESSORS},
        "quantized": quantized(folder, dataset, settings),
        "quantized_tokens": min(PART, dataset.val.num_tokens),
        "sampling": {"temperature": TEMPERATURE, "top_p": TOP_P, "new_tokens": new_tokens},
        "samples": samples(folder, dataset, new_tokens),
    }  # fmt: skip


def schedule_in_words(settings: TrainSettings, steps: int) -> str:
    """How the learning rate changed."""
    if settings.schedule != "wsd":
        return settings.schedule
    decay = DECAY if settings.decay is None else settings.decay
    return (
        f"warmup of {settings.warmup * steps:.0f} steps, constant, then linear from step {(1 - decay) * steps:,.0f} to"
        f" {settings.final_lr * settings.lr:g}"
    )


def through_every_program(folder: Path, dataset: Dataset, context: int) -> dict[str, float]:
    """Bits per byte of the whole validation split, in each program that is installed and can run the model."""
    found = {}
    for program in (*VOLUMES, *OTHERS):
        if program.needs is not None and find_spec(program.needs) is None:
            continue
        with program.open(folder) as forward:
            evaluation = evaluate_split(partial(loss_sum, forward), dataset.val, context, batch_size=1)
        assert evaluation is not None, "nothing stops this evaluation early"
        found[program.name] = evaluation.bits_per_byte
    return found


def loss_sum(forward: Forward, tokens: np.ndarray, targets: np.ndarray) -> float:
    """Nats summed over the counted targets of one window.  tokens, targets: (1,T)"""
    log_probs = log_softmax(forward(tokens[0].tolist()))  # (T,V), float64
    counted = targets[0] != IGNORE_INDEX
    return -float(log_probs[counted, targets[0][counted]].sum())


@dataclass(frozen=True)
class Beginning(ArrayTokens):
    """The first PART tokens of a split, as a split: enough to compare variants of one model."""

    num_bytes: int = 0

    @classmethod
    def of(cls, dataset: Dataset) -> "Beginning":
        ids = dataset.val.read(0, min(PART, dataset.val.num_tokens))
        return cls(ids, num_bytes=len(dataset.tokenizer.decode(ids[1:].tolist(), skip_special=True).encode()))


def quantized(folder: Path, dataset: Dataset, settings: TrainSettings) -> dict[str, dict[str, float]]:
    """The model as it is and quantized: bits per weight, bytes of the file, bits per byte of text."""
    part, config = Beginning.of(dataset), read_config(folder)

    def bits(model: Path) -> float:
        llama = Llama.from_pretrained(model)
        found = evaluate_split(lambda x, y: eval_loss_sum(llama, x, y), part, settings.context, settings.batch_size)
        assert found is not None, "nothing stops this evaluation early"
        return found.bits_per_byte

    size = (folder / "model.safetensors").stat().st_size
    rows = {"bfloat16": {"bits_per_weight": 16.0, "bytes": size, "bits_per_byte": bits(folder)}}
    for scheme in SCHEMES:
        kinds = Scheme.parse(scheme).kinds(config)
        with tempfile.TemporaryDirectory() as place, open_weights(folder) as weights:
            out = Path(place) / scheme
            save_quantized(out, config, weights, kinds, Tokenizer.from_pretrained(folder), scheme=scheme)
            size = sum(file.stat().st_size for file in out.glob("*.safetensors"))
            rows[scheme] = {
                "bits_per_weight": bits_per_weight(kinds, config), "bytes": size, "bits_per_byte": bits(out)
            }  # fmt: skip
    return rows


def samples(folder: Path, dataset: Dataset, new_tokens: int) -> list[dict[str, Any]]:
    """The card's samples, each with its longest passage that occurs in the training text."""
    drawn, tokenizer = draw_samples(folder, new_tokens), Tokenizer.from_pretrained(folder)
    matches = longest_matches([sample.token_ids for sample in drawn], dataset.train)
    rows = []
    for sample, match in zip(drawn, matches, strict=True):
        row: dict[str, Any] = {
            "prompt": sample.prompt, "seed": sample.seed, "repetition_penalty": sample.repetition_penalty,
            "text": sample.text, "longest_match": None,
        }  # fmt: skip
        if match is not None:
            row["longest_match"] = {
                "tokens": match.length,
                "text": tokenizer.decode(sample.token_ids[match.start : match.start + match.length]),
                "book": dataset.train.document_at(match.position).name,
            }
        rows.append(row)
    return rows
