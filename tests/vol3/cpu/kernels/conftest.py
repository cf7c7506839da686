"""Kernels that tests call from Python are compiled once for all processes and later runs, as the runner's step is."""

import pytest

from nano_llama.vol3_engine.cpu.jit import compile_cache
from nano_llama.vol3_engine.cpu.kernels.activations import convert_row
from nano_llama.vol3_engine.cpu.kernels.attention import attend, attend_split, gather_queries
from nano_llama.vol3_engine.cpu.kernels.embed import embed_row
from nano_llama.vol3_engine.cpu.kernels.kv_cache import write_key, write_value
from nano_llama.vol3_engine.cpu.kernels.linear import linear
from nano_llama.vol3_engine.cpu.kernels.lora import expand, set_aside, shrink
from nano_llama.vol3_engine.cpu.kernels.norm import rmsnorm
from nano_llama.vol3_engine.cpu.kernels.repack import repack


@pytest.fixture(scope="session", autouse=True)
def kernels_on_disk(cache_folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NANO_LLAMA_CACHE", str(cache_folder))
        compile_cache.keep_on_disk(
            convert_row,
            attend,
            attend_split,
            gather_queries,
            embed_row,
            write_key,
            write_value,
            linear,
            shrink,
            set_aside,
            expand,
            rmsnorm,
            repack,
        )
