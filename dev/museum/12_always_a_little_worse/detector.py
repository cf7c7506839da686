"""A config comes back from a GGUF with every number that it had, also those that nobody looks at."""

import dataclasses
import tempfile
from pathlib import Path

from nano_llama import LlamaConfig
from nano_llama.core.init import init_params
from nano_llama.formats import open_model, save_gguf


def test_every_number_of_a_config_comes_back():
    for eps, theta in ((1e-5, 10_000.0), (3e-6, 500_000.0), (1e-6, 25_000.0), (2e-4, 10_000.0)):
        config = LlamaConfig(
            vocab_size=32, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=96, rms_norm_eps=eps, rope_theta=theta,
        )  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            save_gguf(Path(folder) / "model.gguf", config, init_params(config, seed=0), dtype="F32")
            with open_model(Path(folder) / "model.gguf") as weights:
                for field in dataclasses.fields(config):
                    value, found = getattr(config, field.name), getattr(weights.config, field.name)
                    if isinstance(value, float):
                        same = abs(found - value) <= 1e-6 * value  # a GGUF keeps float32
                        assert same, f"{field.name} is {value:g} in the config and {found:g} from its GGUF"
