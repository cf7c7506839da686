"""A fine-tuning run of Volume 1 through the one loop: what is trained, saved, resumed and refused; it learns.

The same run in Volume 2: tests/vol2/finetune/test_training.py; both side by side: tests/parity/test_training_curves.py.
"""

import numpy as np
import pytest

from helpers.finetuning import save_chat_model, save_questions
from helpers.training import kill_after
from nano_llama.core.errors import UserError
from nano_llama.core.lora import adapter_shapes
from nano_llama.formats import open_model
from nano_llama.formats.peft import read_adapter
from nano_llama.formats.safetensors import SafetensorsFile
from nano_llama.training.finetune import FinetuneSettings
from nano_llama.training.metrics import read_metrics
from nano_llama.vol1_numpy import Llama
from nano_llama.vol1_numpy.finetune import load_adapter
from nano_llama.vol1_numpy.trainer import Trainer


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_chat_model(tmp_path_factory.mktemp("model") / "base")


@pytest.fixture
def recipe(model, tmp_path):
    return FinetuneSettings(
        data=str(save_questions(tmp_path / "chats.jsonl")), init_from=str(model), engine="numpy", rank=2, lr=0.02,
        batch_size=2, context=96, max_steps=6, evaluations=2, samples=1, sample_tokens=4, num_threads=1,
    )  # fmt: skip


def adapter_of(folder, model):
    with open_model(model) as weights:
        return {name: np.array(array) for name, array in read_adapter(folder, weights.config).tensors.items()}


def losses(folder):
    return [(row["train_loss"], row.get("val_loss")) for row in read_metrics(folder / "metrics.jsonl")]


@pytest.mark.parametrize("adapter", ["lora", "dora"])
def test_only_the_adapter_moves_and_is_saved(recipe, model, tmp_path, adapter):
    trainer = Trainer(recipe.replace(adapter=adapter), tmp_path / "run")
    trainer.fit()
    assert losses(tmp_path / "run")[-1][0] < losses(tmp_path / "run")[0][0] - 0.05
    with open_model(model) as weights:
        for name, param in trainer.backend.model.params.items():
            np.testing.assert_array_equal(param, weights[name], err_msg=f"{name} is frozen")
    loaded = load_adapter(Llama.from_pretrained(model), tmp_path / "run")
    for name, tensor in loaded.adapter.items():
        np.testing.assert_array_equal(tensor, trainer.backend.model.adapter[name], err_msg=name)
    (checkpoint, *_) = sorted((tmp_path / "run/checkpoints").iterdir())
    assert (checkpoint / "adapter_model.safetensors").is_file() and not (checkpoint / "model.safetensors").exists()
    parts = {name.partition("/")[0] for name in SafetensorsFile(checkpoint / "training.safetensors") if "/" in name}
    assert parts == set(adapter_shapes(loaded.lora, loaded.config)), "optimizer state is the adapter's alone"


@pytest.mark.parametrize("changes", [{}, {"adapter": "dora", "ema": 0.9}])
def test_killed_and_resumed_it_is_the_same_adapter(recipe, model, tmp_path, changes):
    recipe = recipe.replace(**changes)
    Trainer(recipe, tmp_path / "whole").fit()
    kill_after(Trainer(recipe, tmp_path / "killed"), step=4)
    Trainer(recipe, tmp_path / "killed", resume=True).fit()
    whole, resumed = (adapter_of(tmp_path / name, model) for name in ("whole", "killed"))
    for name, tensor in whole.items():
        np.testing.assert_array_equal(resumed[name], tensor, err_msg=name)
    assert losses(tmp_path / "whole") == losses(tmp_path / "killed")


def test_the_average_of_the_adapter_is_evaluated_and_saved(recipe, model, tmp_path):
    trainer = Trainer(recipe.replace(ema=0.9), tmp_path / "run")
    trainer.fit()
    for name, tensor in adapter_of(tmp_path / "run", model).items():
        np.testing.assert_array_equal(tensor, trainer.backend.average.params[name], err_msg=name)
        assert not np.array_equal(tensor, trainer.backend.model.adapter[name]), name
    assert trainer.backend.eval_model.adapter is trainer.backend.average.params


def test_without_an_adapter_all_weights_learn(recipe, model, tmp_path):
    Trainer(recipe.replace(adapter="none", lr=0.003), tmp_path / "run").fit()
    assert losses(tmp_path / "run")[-1][0] < losses(tmp_path / "run")[0][0] - 0.05
    with open_model(tmp_path / "run") as after, open_model(model) as before:
        assert all(not np.array_equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize(
    ("changes", "match"),
    [({"packing": True}, "packing = True: examples that share a row"), ({"lora_dropout": 0.1}, "lora_dropout = 0.1"),
     ({"base_quantization": "int8"}, "base_quantization = 'int8'")],
)  # fmt: skip
def test_what_volume_1_cannot_do_is_refused(recipe, tmp_path, changes, match):
    with pytest.raises(UserError, match=match) as refused:
        Trainer(recipe.replace(**changes), tmp_path / "run")
    assert "--engine torch" in refused.value.hint and not (tmp_path / "run").exists()
