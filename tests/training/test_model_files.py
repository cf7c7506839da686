"""What a run saves: the same folder whether it is new or written over, and only the adapter where one is trained."""

import numpy as np

from nano_llama.core.init import init_params
from nano_llama.core.lora import LoraConfig, init_lora_matrices
from nano_llama.formats import open_model
from nano_llama.formats.peft import read_adapter
from nano_llama.training.model_files import AdapterFiles, WholeModel


class FakeTokenizer:
    def save_pretrained(self, folder):
        (folder / "tokenizer.json").write_text("{}")


def test_a_whole_model_replaces_the_one_before(tiny_config, tmp_path):
    config = tiny_config()
    model = WholeModel(config, FakeTokenizer())
    model.begin(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"config.json", "tokenizer.json"}
    for seed in (1, 2):
        model.put(tmp_path, init_params(config, seed))
        with open_model(tmp_path) as weights:
            assert weights.config == config
            assert all(np.array_equal(weights[name], array) for name, array in init_params(config, seed).items())


def test_an_adapter_is_all_that_is_written(tiny_config, tmp_path):
    config, lora = tiny_config(), LoraConfig(r=2, target_modules=("q_proj", "down_proj"))
    model = AdapterFiles(lora, "org/base", FakeTokenizer())
    model.begin(tmp_path)
    for seed in (1, 2):
        tensors = init_lora_matrices(lora, config, seed)
        model.put(tmp_path, tensors)
        found = read_adapter(tmp_path, config)
        assert found.lora == lora and set(found.tensors) == set(tensors)
        assert all(np.array_equal(found.tensors[name], array) for name, array in tensors.items())
    assert '"org/base"' in (tmp_path / "adapter_config.json").read_text()
    assert {file.name for file in tmp_path.iterdir()} == {
        "tokenizer.json", "adapter_config.json", "adapter_model.safetensors",
    }  # fmt: skip
