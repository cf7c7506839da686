"""EngineSettings: which values are accepted, and which are refused."""

import pytest

from nano_llama.core.errors import UserError
from nano_llama.vol3_engine.settings import EngineSettings, parse_bytes


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (512, 512),
        ("512", 512),
        ("2GiB", 2 * 2**30),
        ("1.5 gib", 3 * 2**29),
        ("500MB", 500_000_000),
        ("64KiB", 65536),
        (" 1 kB ", 1000),
        ("7b", 7),
    ],
)
def test_sizes(value, size):
    assert parse_bytes("kv_cache_memory", value) == size
    assert EngineSettings(kv_cache_memory=value).kv_cache_bytes == size


@pytest.mark.parametrize("value", ["", "lots", "-1GiB", "2 TB", "0", 0, -5, None, True, "0.1b", "1e9", "GiB"])
def test_other_sizes_are_refused(value):
    with pytest.raises(UserError, match=r"kv_cache_memory=.*2GiB"):
        EngineSettings(kv_cache_memory=value)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("dtype", "int8", "float32, bfloat16, float16"),
        ("quantization", "int3", "'int3' is not known"),
        ("quantization", "", "is not known"),
        ("kv_cache_dtype", "float16", "float32, bfloat16, int8"),
        ("prefix_caching", 1, "True or False"),
        ("max_num_batched_tokens", 0, "at least 1"),
        ("max_num_seqs", 0, "at least 1"),
        ("max_num_seqs", 2.0, "whole number"),
        ("num_threads", 0, "at least 1"),
        ("num_threads", 100_000, "processors"),
        ("num_threads", True, "whole number"),
    ],
)
def test_invalid_values_are_refused(field, value, says):
    with pytest.raises(UserError, match=says) as caught:
        EngineSettings(**{field: value})
    assert field in str(caught.value)


def test_unknown_settings_are_refused():
    with pytest.raises(TypeError, match="tensor_parallel_size"):
        EngineSettings(tensor_parallel_size=2)
