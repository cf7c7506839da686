"""`bench`: its figures are consistent, and what cannot be measured is refused."""

import pytest

from nano_llama.cli import bench
from nano_llama.formats import open_weights, read_config

SMALL = ("--prompt-tokens", 12, "--new-tokens", 4, "--repeats", 1)


@pytest.fixture(autouse=True)
def small_memory(monkeypatch):
    """A tenth of a second saved a run: memory bandwidth is not what is tested here."""
    monkeypatch.setattr(bench, "read_bandwidth", lambda threads: 2e9)


def test_report(cli, tiny_model):
    done = cli("bench", "--model", tiny_model, *SMALL)
    assert done.code == 0
    for words in ("prefill", "decode", "roofline", "2.0 GB/s", "phase of a step", "gate_up", "round 1 of 1"):
        assert words in done.shown


def test_json_figures_are_consistent(cli, tiny_model):
    done = cli("bench", "--model", tiny_model, *SMALL, "--batch-size", 3, "--threads", 1, "--json", "--quiet")
    found = done.json
    assert (done.code, done.err) == (0, "")
    with open_weights(tiny_model) as weights:
        stored = sum(weights.nbytes(name) for name in weights)
    assert stored <= found["weight_bytes"] < 2 * stored  # rows are padded to whole blocks
    assert found["threads"] == 1
    assert found["decode_tokens_per_second"] == pytest.approx(3 / found["step_seconds"])
    assert found["bytes_per_token"] == pytest.approx((found["weight_bytes"] + found["kv_bytes"]) / 3)
    assert found["roofline_tokens_per_second"] == pytest.approx(2e9 / found["bytes_per_token"])
    assert found["roofline_share"] * found["roofline_tokens_per_second"] == pytest.approx(
        found["decode_tokens_per_second"]
    )
    assert 0 < sum(found["parts_seconds"].values()) < 1.01 * found["step_seconds"]


def test_the_default_prompt_fits_into_the_context(cli, tiny_model):
    found = cli("bench", "--model", tiny_model, "--new-tokens", 4, "--repeats", 1, "--json").json
    assert found["prompt_tokens"] == min(512, read_config(tiny_model).max_position_embeddings - 4)


def test_the_kv_cache_dtype_changes_its_bytes(cli, tiny_model):
    config = read_config(tiny_model)
    values = 2 * config.num_hidden_layers * config.num_key_value_heads * 16  # a head of fewer is padded to 16
    assert config.head_dim <= 16
    for kind, size in (("float32", 4), ("bfloat16", 2)):
        found = cli("bench", "--model", tiny_model, *SMALL, "--kv-cache-dtype", kind, "--json").json
        assert found["kv_cache_dtype"] == kind
        assert found["kv_bytes"] == 14 * values * size  # 12 tokens of prompt, 2 of 4 new ones


def test_quantized_weights_are_fewer_bytes(cli, make_tiny, tmp_path):
    model = make_tiny(tmp_path / "model", hidden_size=64, intermediate_size=128)

    def weights(*args):
        return cli("bench", "--model", model, *SMALL, *args, "--json").json["weight_bytes"]

    assert weights("--quantization", "int4") < weights("--quantization", "int8") < weights() / 3


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--prompt-tokens", "0"], "--prompt-tokens"),
        (["--new-tokens", "9999999"], "9999999"),
        (["--kv-cache-dtype", "int3"], "int3"),
        (["--threads", "-1"], "--threads"),
        (["--quantization", "int3"], "int3"),
        (["--quantization", "int8", "--dtype", "float32"], "quantization"),
    ],
)
def test_invalid_options_are_refused(cli, tiny_model, args, says):
    done = cli("bench", "--model", tiny_model, *args)
    assert done.code == 2
    assert done.out == ""
    assert says in done.err
    assert "inside nano-llama" not in done.err
