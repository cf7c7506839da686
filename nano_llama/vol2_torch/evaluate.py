"""The loss of a model on text it was not trained on: nats per token, perplexity, bits per byte.

`evaluate_model` evaluates any checkpoint on any source. What the figures mean: training/evaluation.py.
Tests: tests/vol2/test_evaluate.py.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from nano_llama.core.errors import FormatError, UserError
from nano_llama.core.units import plural
from nano_llama.data.prepare import prepare
from nano_llama.formats import resolve_model
from nano_llama.tokenizer import Tokenizer
from nano_llama.training.callback import Callback
from nano_llama.training.evaluation import Evaluation, evaluate_split
from nano_llama.training.saved_settings import load_settings
from nano_llama.training.settings import TrainSettings
from nano_llama.vol2_torch.device import resolve_device
from nano_llama.vol2_torch.loss import loss_sum
from nano_llama.vol2_torch.model import Llama

MAX_CONTEXT = 2048  # by default; the attention of a longer one would take too much memory here


@torch.no_grad()  # not inference_mode: RoPE tables made under it cannot be used in training
def eval_loss_sum(model: Llama, tokens: np.ndarray, targets: np.ndarray) -> float:
    """The loss summed over the counted targets, in nats, without a gradient.  tokens, targets: (B,T)"""
    return loss_sum(model, torch.from_numpy(tokens).to(model.device), torch.from_numpy(targets).to(model.device)).item()


def evaluate_model(
    model: str | Path,
    data: str | None = None,
    *,
    adapter: str | Path | None = None,
    split: str = "val",
    context: int | None = None,
    batch_size: int = 16,
    device: str = "auto",
    callback: Callback | None = None,
) -> Evaluation:
    """The loss of a checkpoint on a source's split, whole, in consecutive windows of `context` tokens.

    model: a run's folder, one of its checkpoints, or any other model. data: a source (data/sources.py), tokenized
    by the model's own tokenizer; None: what the run was trained on. adapter: a folder in PEFT's format, of an adapter
    to merge into the model in memory. split: "val" or "train". context: None: the run's own, or up to MAX_CONTEXT.
    Raises UserError where data, context or adapter do not fit the model.
    """
    path, callback = resolve_model(model), callback or Callback()
    run = find_run_settings(path)
    if data is None:
        if run is None:
            raise UserError(f"{model} is not a training run, so it names no data.", hint="Give --data.")
        data = run.data
    loaded = Llama.from_pretrained(path, device=resolve_device(device), adapter=adapter)
    longest = loaded.config.max_position_embeddings
    context = context or (run.context if run else min(longest, MAX_CONTEXT))
    if context > longest:
        raise UserError(f"context = {context} is longer than the model's {longest} positions.")
    dataset = prepare(data, Tokenizer.from_pretrained(path), progress=callback.preparing)
    tokens = {"train": dataset.train, "val": dataset.val}.get(split)
    if tokens is None:
        raise UserError(f"Unknown split {split!r}.", hint="Choose val or train.")
    if tokens.num_tokens < 2:
        raise UserError(f"{data}: the {split} split has {plural(tokens.num_tokens, 'token')}, too few to predict one.")
    counted = 0

    def count(here: int) -> None:
        nonlocal counted
        counted += here
        callback.evaluating(counted, tokens.num_tokens - 1)

    nats: Callable[[np.ndarray, np.ndarray], float] = lambda x, y: eval_loss_sum(loaded, x, y)  # noqa: E731
    evaluation = evaluate_split(nats, tokens, context, batch_size, on_batch=count)
    assert evaluation is not None, "nothing stops this evaluation early"
    if not np.isfinite(evaluation.loss):
        raise FormatError(f"{model}: its loss is {evaluation.loss}: the weights are damaged, or training diverged.")
    return evaluation


def find_run_settings(path: Path) -> TrainSettings | None:
    """The settings of the run that `path` is or belongs to as a checkpoint; None where it does neither."""
    for folder in (path, path.parent.parent):
        if (folder / "train.json").is_file() and (folder == path or path.parent.name == "checkpoints"):
            return load_settings(folder / "train.json")
    return None
