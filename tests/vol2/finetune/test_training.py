"""A fine-tuning run through the one loop: only the adapter moves, is saved, and comes back bit for bit."""

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from helpers.finetuning import save_chat_model, save_questions
from helpers.training import kill_after
from nano_llama.core.errors import UserError
from nano_llama.core.loss import IGNORE_INDEX
from nano_llama.formats import open_model
from nano_llama.formats.peft import read_adapter
from nano_llama.training.finetune import FinetuneSettings
from nano_llama.training.metrics import read_metrics
from nano_llama.training.preflight import num_trained
from nano_llama.vol2_torch import Llama
from nano_llama.vol2_torch.finetune import adapter_params, apply_lora, load_adapter
from nano_llama.vol2_torch.trainer import Trainer


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_chat_model(tmp_path_factory.mktemp("model") / "base")


@pytest.fixture
def recipe(model, tmp_path):
    return FinetuneSettings(
        data=str(save_questions(tmp_path / "chats.jsonl")), init_from=str(model), rank=2, lr=0.02, batch_size=2,
        context=96, max_steps=6, evaluations=2, samples=1, sample_tokens=4, device="cpu", precision="fp32",
        num_threads=1,
    )  # fmt: skip


def adapter_of(folder, model):
    with open_model(model) as weights:
        return {name: np.array(array) for name, array in read_adapter(folder, weights.config).tensors.items()}


@pytest.mark.parametrize("adapter", ["lora", "dora"])
def test_only_the_adapter_moves_and_is_saved(recipe, model, tmp_path, adapter):
    trainer = Trainer(recipe.replace(adapter=adapter), tmp_path / "run")
    assert trainer.expected.parameters == num_trained(trainer.config, trainer.settings)
    trainer.fit()
    losses = [row["train_loss"] for row in read_metrics(tmp_path / "run/metrics.jsonl")]
    assert losses[-1] < losses[0] - 0.05, "little can be learned beside weights that were drawn at random"
    with open_model(model) as weights:
        for name, parameter in trainer.backend.model.named_params().items():
            assert np.array_equal(parameter.detach().numpy(), weights[name]), f"{name} is frozen"
    loaded = load_adapter(Llama.from_pretrained(model), tmp_path / "run")
    for name, parameter in adapter_params(loaded).items():
        assert torch.equal(parameter, trainer.backend.parameters[name]), name
    files = {file.name for file in (tmp_path / "run").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "train.json"} <= files
    assert not {"model.safetensors", "config.json"} & files
    (checkpoint, *_) = sorted((tmp_path / "run/checkpoints").iterdir())
    assert (checkpoint / "adapter_model.safetensors").is_file() and not (checkpoint / "model.safetensors").exists()


def test_its_first_gradient_is_autograd_s_over_whole_batches(recipe, model, tmp_path):
    """The head at counted positions, packed rows and accumulation change nothing."""
    trainer = Trainer(recipe.replace(accumulate=2, activation_checkpointing="none"), tmp_path / "run")
    batches = [trainer.batches.at(position) for position in (0, 1)]
    trainer.backend.gradient(batches)
    plain = apply_lora(Llama.from_pretrained(model), trainer.settings.lora, seed=trainer.settings.seed)
    sums, counted = torch.zeros(()), 0
    for sequence in batches:
        for tokens, targets, documents in zip(*map(torch.from_numpy, sequence), strict=True):
            for number in documents.unique().tolist():
                here = documents == number
                if number >= 0:
                    logits = plain(tokens[here][None])[0]
                    sums = sums + torch.nn.functional.cross_entropy(logits, targets[here], reduction="sum")
                    counted += int((targets[here] != IGNORE_INDEX).sum())
    (sums / counted).backward()
    for name, parameter in adapter_params(plain).items():
        own = trainer.backend.parameters[name].grad
        assert (own - parameter.grad).abs().max() <= 1e-6 * max(float(parameter.grad.abs().max()), 1e-3), name


def test_killed_and_resumed_it_is_the_same_adapter(recipe, model, tmp_path):
    Trainer(recipe, tmp_path / "whole").fit()
    kill_after(Trainer(recipe, tmp_path / "killed"), step=4)
    Trainer(recipe, tmp_path / "killed", resume=True).fit()
    whole, resumed = (adapter_of(tmp_path / name, model) for name in ("whole", "killed"))
    assert all(np.array_equal(whole[name], resumed[name]) for name in whole)
    assert [row["train_loss"] for row in read_metrics(tmp_path / "whole/metrics.jsonl")] == [
        row["train_loss"] for row in read_metrics(tmp_path / "killed/metrics.jsonl")
    ]


def test_other_examples_are_not_resumed_with(recipe, tmp_path):
    Trainer(recipe, tmp_path / "run").fit()
    save_questions(tmp_path / "chats.jsonl", 30)
    with pytest.raises(UserError, match="has changed since"):
        Trainer(recipe.replace(max_steps=9), tmp_path / "run", resume=True)


def test_without_an_adapter_it_is_a_whole_model(recipe, tmp_path):
    Trainer(recipe.replace(adapter="none", lr=0.003), tmp_path / "run").fit()
    with open_model(tmp_path / "run") as weights:
        assert weights.config.eos_token_ids
    assert not (tmp_path / "run/adapter_config.json").exists()


def test_epochs_become_steps(recipe, tmp_path):
    trainer = Trainer(recipe.replace(epochs=2.0), tmp_path / "run")
    assert trainer.settings.max_steps == trainer.batches.steps(2.0) and trainer.settings.epochs is None
    trainer.fit()
    assert Trainer(recipe.replace(epochs=3.0), tmp_path / "run", resume=True).state.step == trainer.settings.max_steps
