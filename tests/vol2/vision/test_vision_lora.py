"""LoRA factors beside the LLaMA of a model that reads images: gradients, first step, merging, resuming."""

import shutil

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from helpers.training import stop_before  # noqa: E402
from nano_llama.core.errors import UserError  # noqa: E402
from nano_llama.core.init import init_params  # noqa: E402
from nano_llama.core.presets import model_preset  # noqa: E402
from nano_llama.core.vision.names import PROJECTOR, is_language_model, text_name  # noqa: E402
from nano_llama.formats import save_hf  # noqa: E402
from nano_llama.formats.vision_folder import open_vision_language  # noqa: E402
from nano_llama.tokenizer import Tokenizer  # noqa: E402
from nano_llama.training.picture_files import FACTORS  # noqa: E402
from nano_llama.training.pictures import picture_data, picture_start  # noqa: E402
from nano_llama.training.settings import TrainSettings  # noqa: E402
from nano_llama.vol2_torch.finetune import merge_lora  # noqa: E402
from nano_llama.vol2_torch.loss import loss_sum  # noqa: E402
from nano_llama.vol2_torch.trainer import Trainer  # noqa: E402
from nano_llama.vol2_torch.vision import VisionLanguageModel  # noqa: E402
from nano_llama.vol2_torch.vision.train import vision_model_to_train  # noqa: E402

RANK = 2
SCALE = 16 / RANK  # alpha is LoraConfig's


def save_llama(folder, seed):
    tokenizer = Tokenizer.from_pretrained("nano_gpt")
    config = model_preset("tiny", vocab_size=tokenizer.vocab_size, max_position_embeddings=96)
    save_hf(folder, config, init_params(config, seed=seed), tokenizer)


@pytest.fixture
def settings(tmp_path, monkeypatch):
    for module in ("data.vqa.dataset", "training.picture_answers"):
        monkeypatch.setattr(f"nano_llama.{module}.NUM_VALIDATION", 6)
    save_llama(tmp_path / "llama", seed=1)
    return TrainSettings(
        data="shapes-vqa", init_from=str(tmp_path / "llama"), encoder="tiny", tasks="shape", context=96, batch_size=3,
        max_steps=4, optimizer="muon", lr=3e-3, language_model_lr=1.0, language_model_rank=RANK, evaluations=2,
        samples=0, log_every=1, num_threads=1, precision="fp32",
    )  # fmt: skip


def started(settings, **changes):
    """(model, trained parameters, batch) in float64."""
    settings = settings.replace(**changes)
    dataset = picture_data(settings, None)
    model, parameters = vision_model_to_train(settings, *picture_start(settings, dataset, None), torch.device("cpu"))
    batch = dataset.training_batches(3, 96, 0, False).at(0)
    tokens, targets, _, pixel_values = map(torch.from_numpy, batch)
    return model.double(), parameters, (tokens, targets, pixel_values.double())


def loss_of(model, batch):
    tokens, targets, pixel_values = batch
    return loss_sum(model, tokens, targets, images=(pixel_values,))


def fill(parameters):
    """Factors that change the model: B is zero at first."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in parameters.items():
            if name.endswith("lora_B"):
                parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype) / 20)


def test_gradients_are_those_of_the_dense_twin(settings):
    """Autograd through W + scale B A, in a model without LoRA's layers."""
    model, parameters, batch = started(settings)
    fill(parameters)
    loss = loss_of(model, batch)
    found = dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True))

    leaves = {name: parameter.detach().clone().requires_grad_() for name, parameter in parameters.items()}
    twin, _, _ = started(settings, language_model_rank=0)
    weights = {}
    for name, weight in twin.named_parameters():
        module = name.removesuffix(".weight")
        if f"{module}.lora_A" in leaves:
            weights[name] = weight.detach() + SCALE * leaves[f"{module}.lora_B"] @ leaves[f"{module}.lora_A"]
        else:
            weights[name] = leaves.get(name, weight.detach())
    for name, value in weights.items():
        holder, _, leaf = name.rpartition(".")
        del twin.get_submodule(holder)._parameters[leaf]
        setattr(twin.get_submodule(holder), leaf, value)
    expected_loss = loss_of(twin, batch)
    torch.testing.assert_close(loss, expected_loss, rtol=1e-12, atol=0)
    expected = torch.autograd.grad(expected_loss, list(leaves.values()))
    assert sum(name.endswith("lora_A") for name in found) == 7 * model.config.text_config.num_hidden_layers
    for name, gradient in zip(leaves, expected, strict=True):
        assert gradient.abs().max() > 0, name
        torch.testing.assert_close(found[name], gradient, rtol=1e-9, atol=1e-11, msg=name)


def test_it_begins_as_the_frozen_llama(settings):
    """B is zero: the same loss, the same gradients of what looks at the pictures, and none for A."""
    model, parameters, batch = started(settings)
    frozen, others, _ = started(settings, language_model_rank=0, language_model_lr=0.0)
    assert others.keys() == {name for name in parameters if not is_language_model(name)}
    loss, expected = loss_of(model, batch), loss_of(frozen, batch)
    assert loss.item() == expected.item()
    loss.backward()
    expected.backward()
    for name, parameter in others.items():
        torch.testing.assert_close(parameters[name].grad, parameter.grad, rtol=1e-9, atol=1e-12, msg=name)
    for name, parameter in parameters.items():
        if is_language_model(name):
            assert (parameter.grad.abs().max() > 0) == name.endswith("lora_B"), name
    assert all(p.grad is None for p in (*model.parameters(), *frozen.parameters()) if not p.requires_grad)


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if ".safetensors" in path.name}


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_stopped_and_resumed(settings, tmp_path, ema):
    settings = settings.replace(ema=ema)
    Trainer(settings, tmp_path / "whole").fit()

    stop_before(Trainer(settings, tmp_path / "run"), 3)
    Trainer(settings, tmp_path / "run", resume=True).fit()
    expected = files_of(tmp_path / "whole")
    assert expected.keys() == {"model.safetensors", FACTORS} and files_of(tmp_path / "run") == expected
    last = "checkpoints/step-00000004"
    assert files_of(tmp_path / "run" / last) == files_of(tmp_path / "whole" / last), "the optimizer's tensors as well"


def test_the_runs_model_is_the_merged_one(settings, tmp_path):
    trainer = Trainer(settings.replace(tasks="shape,count"), tmp_path / "run")
    before = {name: value.detach().clone() for name, value in trainer.backend.model.named_parameters()}
    trainer.fit()
    backend = trainer.backend
    assert trainer.expected.parameters == sum(parameter.numel() for parameter in backend.parameters.values())
    for name, value in backend.model.named_parameters():
        assert torch.equal(value, before[name]) == (name not in backend.parameters), name

    opened = VisionLanguageModel.from_pretrained(tmp_path / "run")
    tokens, _, _, pixel_values = map(torch.from_numpy, trainer.batches.at(0))
    with torch.no_grad():
        unmerged = backend.model.eval()(tokens, pixel_values)
        torch.testing.assert_close(opened.eval()(tokens, pixel_values), unmerged, rtol=1e-4, atol=1e-5)
    merge_lora(backend.model.language_model)
    changed = set()
    for name, value in opened.named_params().items():
        torch.testing.assert_close(value, backend.model.get_parameter(name), rtol=0, atol=1e-6, msg=name)
        changed |= {name} if not torch.equal(value, before[name]) else set()
    layers = range(opened.config.text_config.num_hidden_layers)
    adapted = {text_name(f"model.layers.{i}.{part}_proj.weight") for i in layers
               for part in [*(f"self_attn.{x}" for x in "qkvo"), "mlp.gate", "mlp.up", "mlp.down"]}  # fmt: skip
    assert {name for name in changed if is_language_model(name)} == adapted


def test_another_llama_is_refused(settings, tmp_path):
    Trainer(settings.replace(evaluations=0), tmp_path / "run").fit()
    shutil.rmtree(tmp_path / "llama")
    save_llama(tmp_path / "llama", seed=2)
    with pytest.raises(UserError, match=r"init_from = .* has changed since .*step-00000004 was saved"):
        Trainer(settings.replace(evaluations=0, max_steps=6), tmp_path / "run", resume=True)


def test_a_frozen_encoder_stays(settings, tmp_path):
    """Of a run's model, which goes on with its projector and the LLaMA's factors alone."""
    Trainer(settings.replace(language_model_rank=0, evaluations=0, max_steps=2), tmp_path / "sees").fit()
    more = settings.replace(init_from=str(tmp_path / "sees"), encoder=None, freeze_encoder=True, max_steps=2)
    Trainer(more, tmp_path / "more").fit()
    (_, before), (_, after) = open_vision_language(tmp_path / "sees"), open_vision_language(tmp_path / "more")
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert {name for name in changed if not is_language_model(name)} == {PROJECTOR}
    assert any(map(is_language_model, changed))
