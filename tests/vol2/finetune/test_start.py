"""What a fine-tuning run begins with, and a run on a quantized base."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from helpers.finetuning import save_chat_model, save_questions  # noqa: E402
from nano_llama.formats import open_model, save_gguf  # noqa: E402
from nano_llama.tokenizer import Tokenizer  # noqa: E402
from nano_llama.training.finetune import FinetuneSettings  # noqa: E402
from nano_llama.training.metrics import read_metrics  # noqa: E402
from nano_llama.training.settings import TrainSettings  # noqa: E402
from nano_llama.vol2_torch import Llama  # noqa: E402
from nano_llama.vol2_torch.finetune import adapter_params, load_adapter, quantized_base  # noqa: E402
from nano_llama.vol2_torch.finetune.start import model_to_train  # noqa: E402
from nano_llama.vol2_torch.quantized_linear import QuantizedMatrix  # noqa: E402
from nano_llama.vol2_torch.trainer import Trainer  # noqa: E402


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_chat_model(tmp_path_factory.mktemp("model") / "base", intermediate_size=64)


@pytest.fixture
def recipe(model, tmp_path):
    return FinetuneSettings(
        data=str(save_questions(tmp_path / "chats.jsonl")), init_from=str(model), rank=2, lr=0.02, batch_size=2,
        context=96, max_steps=4, evaluations=2, samples=1, sample_tokens=4, device="cpu", precision="fp32",
        num_threads=1, base_quantization="int4",
    )  # fmt: skip


def test_a_run_on_a_quantized_base_is_resumed_and_loaded(recipe, model, tmp_path):
    Trainer(recipe, tmp_path / "run").fit()
    trainer = Trainer(recipe.replace(max_steps=6), tmp_path / "run", resume=True)
    assert trainer.state.step == 4
    assert any(isinstance(module, QuantizedMatrix) for module in trainer.backend.model.modules())
    trainer.fit()
    losses = [row["val_loss"] for row in read_metrics(tmp_path / "run/metrics.jsonl") if "val_loss" in row]
    assert losses[-1] < losses[0]
    with open_model(model) as weights:
        loaded = load_adapter(quantized_base(weights.config, weights, "int4"), tmp_path / "run")
    for name, parameter in adapter_params(loaded).items():
        assert torch.equal(parameter, trainer.backend.parameters[name]), name


def test_a_run_in_bfloat16_holds_the_layers_in_it_and_samples(recipe, tmp_path):
    trainer = Trainer(recipe.replace(base_quantization=None, precision="bf16"), tmp_path / "run")
    assert trainer.backend.model.model.layers[0].mlp.up_proj.weight.dtype == torch.bfloat16
    assert {p.dtype for p in trainer.backend.parameters.values()} == {torch.float32}
    trainer.fit()


def test_the_files_own_blocks_are_said_to_be_kept(recipe, model, tmp_path):
    with open_model(model) as weights:
        save_gguf(tmp_path / "q.gguf", weights.config, weights, Tokenizer.from_pretrained(model), dtype="Q4_1")
    notices = []
    with open_model(tmp_path / "q.gguf") as weights:
        model_to_train(recipe, weights.config, weights, None, torch.device("cpu"), torch.float32, notices.append)
        assert len(notices) == 1 and "own Q4_1 and Q8_0 blocks" in notices[0]
    with open_model(model) as weights:
        model_to_train(recipe, weights.config, weights, None, torch.device("cpu"), torch.float32, notices.append)
        assert len(notices) == 1


def test_text_trains_all_parameters_of_the_given_or_fresh_weights(tiny_config):
    config, settings = tiny_config(), TrainSettings(data="x", seed=3)
    options = (None, torch.device("cpu"), torch.bfloat16, print)
    fresh, parameters = model_to_train(settings, config, None, *options)
    assert parameters.keys() == fresh.named_params().keys() and all(p.requires_grad for p in parameters.values())
    given = {name: p.detach().numpy() + np.float32(1) for name, p in Llama.init(config, seed=3).named_params().items()}
    again, _ = model_to_train(settings, config, given, *options)
    for name, p in again.named_params().items():
        assert torch.equal(p, fresh.named_params()[name] + 1), name
