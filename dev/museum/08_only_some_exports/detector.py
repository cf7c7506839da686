"""What is exported comes back, whatever the number of heads; and the rows lie as llama.cpp expects them."""

import tempfile
from pathlib import Path

import numpy as np

from nano_llama import LlamaConfig
from nano_llama.core.init import init_params
from nano_llama.formats import open_model, save_gguf
from nano_llama.formats.gguf_reader import GGUFFile

H, K = 4, 16


def make(G):
    config = LlamaConfig(
        vocab_size=32, hidden_size=H * K, intermediate_size=96, num_hidden_layers=1, num_attention_heads=H,
        num_key_value_heads=G, max_position_embeddings=64,
    )  # fmt: skip
    return config, init_params(config, seed=G)


def paired(matrix):
    """llama.cpp's order: of every head of K rows first the pair (0, K/2), then (1, K/2 + 1), ..."""
    order = [head + half + i for head in range(0, len(matrix), K) for i in range(K // 2) for half in (0, K // 2)]
    return matrix[order]


def test_an_export_comes_back():
    for G in (4, 1, 2):
        config, params = make(G)
        with tempfile.TemporaryDirectory() as folder:
            save_gguf(Path(folder) / "model.gguf", config, params, dtype="F32")
            with open_model(Path(folder) / "model.gguf") as weights:
                for name, param in params.items():
                    assert np.array_equal(weights[name], param), f"{H} and {G} heads: {name} comes back otherwise"


def test_a_copy_of_a_quantized_file_comes_back():
    for G in (4, 1, 2):
        config, params = make(G)
        with tempfile.TemporaryDirectory() as folder:
            first, second = Path(folder) / "a.gguf", Path(folder) / "b.gguf"
            save_gguf(first, config, params, dtype="Q8_0")
            with open_model(first) as weights:
                save_gguf(second, config, weights, dtype="keep")
                with open_model(second) as copied:
                    for name in params:
                        assert np.array_equal(weights[name], copied[name]), (
                            f"{H} and {G} heads: a copy of a quantized file has another {name}"
                        )


def test_the_rows_lie_as_llama_cpp_expects():
    for G in (4, 1, 2):
        config, params = make(G)
        with tempfile.TemporaryDirectory() as folder:
            save_gguf(Path(folder) / "model.gguf", config, params, dtype="F32")
            file = GGUFFile(Path(folder) / "model.gguf")
            for ours, theirs in (("q_proj", "attn_q"), ("k_proj", "attn_k")):
                matrix = params[f"model.layers.0.self_attn.{ours}.weight"]
                written = file.blocks(f"blk.0.{theirs}.weight").view(np.float32).reshape(matrix.shape)
                assert np.array_equal(written, paired(matrix)), f"{H} and {G} heads: the rows of {theirs} lie otherwise"
            file.close()
