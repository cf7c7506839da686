"""Every figure of nano_gpt's card, measured: its loss, its size quantized, samples and what they repeat.

nano_gpt_card.py puts them into words. Tests: tests/recipes/test_nano_gpt.py.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from nano_llama.training.metrics import read_metrics
from nano_llama.training.schedule import DECAY
from nano_llama.training.settings import TrainSettings
from nano_llama.vol2_torch.evaluate import eval_loss_sum
from nano_llama.vol2_torch.model import Llama

SCHEMES = ("int8", "int4")
PART = 32_768  # tokens on which quantized variants are compared


def measure(folder: Path, run: Path, new_tokens: int = NEW_TOKENS) -> dict[str, Any]:
    """Measure the released model in `folder`, which `run` trained, on the validation split of the run's data.

    The loss on the whole split is the run's own last one, of its float32 weights.
    """
    settings, config = TrainSettings.load(run / "train.json"), read_config(folder)
    rows = read_metrics(run / "metrics.jsonl")
    last = rows[-1]
    dataset = prepare(settings.data, Tokenizer.from_pretrained(folder))
    text = split_text(settings.data)
    return {
        "parameters": config.num_parameters,
        "config": config.to_hf_dict(),
        "weights_bytes": (folder / "model.safetensors").stat().st_size,
        "settings": {key: value for key, value in settings.to_json().items() if key != "data"},
        "steps": last["step"],
        "schedule": schedule_in_words(settings),
        "tokens": last["tokens"],
        "hours": last["elapsed_s"] / 3600,
        "flops": training_flops(config, last["tokens"], settings.context),
        "data": {
            "train_tokens": dataset.train.num_tokens, "train_bytes": dataset.train.num_bytes,
            "train_books": dataset.train.num_documents, "val_tokens": dataset.val.num_tokens,
            "val_bytes": dataset.val.num_bytes, "val_books": dataset.val.num_documents,
        },
        "validation": {"loss": last["val_loss"], "bits_per_byte": last["val_bits_per_byte"]},
        "compressors": {name: compressed_bits_per_byte(name, text) for name in COMPRESSORS},
        "quantized": quantized(folder, dataset, settings),
        "quantized_tokens": min(PART, dataset.val.num_tokens),
        "sampling": {"temperature": TEMPERATURE, "top_p": TOP_P, "new_tokens": new_tokens},
        "samples": samples(folder, dataset, new_tokens),
    }  # fmt: skip


def schedule_in_words(settings: TrainSettings) -> str:
    """How the learning rate changed."""
    steps = settings.max_steps
    if settings.schedule != "wsd" or steps is None:
        return settings.schedule
    decay = DECAY if settings.decay is None else settings.decay
    return (
        f"warmup of {settings.warmup * steps:.0f} steps, constant, then linear from step {(1 - decay) * steps:,.0f} to"
        f" {settings.final_lr * settings.lr:g}"
    )


def training_flops(config: Any, tokens: int, context: int) -> float:
    """Six per parameter and token, plus 6 L D T for causal attention (Chowdhery et al. 2022, arXiv 2204.02311, B)."""
    attention = 6 * config.num_hidden_layers * config.hidden_size * context
    return float(tokens) * (6 * config.num_parameters + attention)


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
