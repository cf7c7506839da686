"""The CPU runner: packed weights, a paged KV cache, and a pool of threads that runs compiled steps. No torch.

    runner = CpuRunner.load("model.gguf")
    runner.allocate(num_blocks, BLOCK_SIZE)
    logits = runner.execute(batch)              (R,V), valid until the next call

Not here: the step itself (kernels/step.py), how a batch becomes arrays (batch.py).
Tests: tests/vol3/cpu/test_runner.py, tests/parity/.
"""

import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from nano_llama.core.config import LlamaConfig
from nano_llama.core.errors import EnvironmentFault
from nano_llama.core.machine import usable_cores
from nano_llama.core.rope import require_constant_angles
from nano_llama.core.variants import require_llama
from nano_llama.formats import open_text_model
from nano_llama.formats.kinds import BY_NUMBER
from nano_llama.formats.mapping import TensorMapping
from nano_llama.vol3_engine.adapters import read_adapters
from nano_llama.vol3_engine.batch import PackedBatch
from nano_llama.vol3_engine.cpu.adapters import low_columns
from nano_llama.vol3_engine.cpu.aligned import aligned
from nano_llama.vol3_engine.cpu.batch import Capacity, RopeTable, capacity_for, empty_batch, fill
from nano_llama.vol3_engine.cpu.jit import compile_cache
from nano_llama.vol3_engine.cpu.jit.thread_pool import ThreadPool, publish
from nano_llama.vol3_engine.cpu.kernels import kv_cache, step
from nano_llama.vol3_engine.cpu.kernels.activations import activations
from nano_llama.vol3_engine.cpu.kernels.attention import query_tile
from nano_llama.vol3_engine.cpu.kernels.kinds import F32, UNIT
from nano_llama.vol3_engine.cpu.kernels.linear import linear_scratch
from nano_llama.vol3_engine.cpu.kernels.model import HEAD, KIND
from nano_llama.vol3_engine.cpu.kernels.repack import repack
from nano_llama.vol3_engine.cpu.weights import load_model
from nano_llama.vol3_engine.settings import DTYPES, KV_DTYPES, check_choice


class CpuRunner:
    """A model in memory, ready to run steps with `num_threads` threads (None: one per usable core).

    dtype, quantization: see weights.py. kv_cache_dtype: "float32", "bfloat16", "int8"; "auto" is float32 if all weights
    are, else bfloat16. adapters: name -> folder, of those that a batch may name (cpu/adapters.py). After
    `time_phases()`, `seconds` holds the time of each phase of the steps so far.
    """

    phases = step.PHASES

    def __init__(
        self,
        config: LlamaConfig,
        weights: TensorMapping,
        dtype: str = "auto",
        kv_cache_dtype: str = "auto",
        num_threads: int | None = None,
        *,
        quantization: str | None = None,
        adapters: Mapping[str, Path] | None = None,
    ):
        require_constant_angles(config, "The CPU runner")
        require_llama(config, "the CPU runner", hint='Volumes 2 and 1 compute it: runner="torch" or "numpy".')
        check_choice("dtype", dtype, DTYPES)
        check_choice("kv_cache_dtype", kv_cache_dtype, KV_DTYPES)
        self.config = config
        self.adapters = tuple(adapters or ())
        self.threads = num_threads or usable_cores()
        self.kv_cache_dtype = kv_cache_dtype
        self.seconds: dict[str, float] = {}
        self._folder = compile_cache.keep_on_disk(step.worker_loop, publish, repack)
        loaded = read_adapters(adapters or {}, config, weights)
        with compile_cache.compiling(self._folder, "repack"):
            self.model = load_model(config, weights, dtype, quantization, list(loaded.values()))
        if kv_cache_dtype == "auto":
            exact = np.all(self.model.layers[:, :, KIND] == F32)
            self.kv_cache_dtype = "float32" if exact else "bfloat16"
        self._rope = RopeTable(config)
        self._pool = ThreadPool(self.threads)
        self._capacity = Capacity(0, 0, 0, 0, 0, 0)
        self._cache: kv_cache.KVCache | None = None

    @classmethod
    def load(
        cls,
        path: str | Path,
        dtype: str = "auto",
        kv_cache_dtype: str = "auto",
        num_threads: int | None = None,
        *,
        quantization: str | None = None,
        adapters: Mapping[str, Path] | None = None,
    ) -> "CpuRunner":
        """From a Hugging Face folder or a file. Raises UserError, EnvironmentFault, FormatError."""
        with open_text_model(path) as weights:
            return cls(
                weights.config, weights, dtype, kv_cache_dtype, num_threads, quantization=quantization,
                adapters=adapters,
            )  # fmt: skip

    @property
    def separate_prefill(self) -> bool:
        return self.model.prefill_form != self.model.decode_form

    @property
    def weight_kinds(self) -> list[str]:
        """In which the matrices are held, as "Q4_1", "BF16"."""
        entries = [*self.model.layers.reshape(-1, 5), *self.model.ends]
        return sorted({BY_NUMBER[int(entry[KIND])].name for entry in entries})

    @property
    def kv_bytes_per_token(self) -> int:
        c = self.config
        return kv_cache.bytes_per_token(c.num_hidden_layers, c.num_key_value_heads, c.head_dim, self.kv_cache_dtype)

    @property
    def weight_bytes(self) -> int:
        entries = [*self.model.layers.reshape(-1, 5), self.model.ends[HEAD]]
        return sum(int(end - start) for _, _, _, start, end in entries) + self.model.norms.nbytes

    def allocate(self, num_blocks: int, block_size: int) -> None:
        assert self._cache is None, "allocated once"
        assert block_size == kv_cache.BLOCK_SIZE, "a block's positions are the lanes of a vector"
        c = self.config
        try:
            self._cache = kv_cache.kv_cache(
                c.num_hidden_layers, c.num_key_value_heads, num_blocks, c.head_dim, self.kv_cache_dtype
            )
        except (MemoryError, ValueError):
            size = num_blocks * block_size * self.kv_bytes_per_token
            raise EnvironmentFault(
                f"This machine has no {size / 2**30:.2f} GiB left for keys and values.", hint="Lower kv_cache_memory."
            ) from None
        # kernels compile now, while the model loads: not in the first request, whose time is shown
        self._allocate_workspace(
            self._capacity.grown(Capacity(rows=1, sampled=1, table=1, tasks=1, slots=0, embeddings=0))
        )

    def weights_changed(self, thorough: bool) -> bool:
        return False  # they are packed copies of its own

    def execute(self, batch: PackedBatch) -> np.ndarray:
        assert self._cache is not None, "allocate comes first"
        needed = capacity_for(batch, self.config, self.threads)
        if not self._capacity.holds(needed):
            self._allocate_workspace(self._capacity.grown(needed))
        sampled = fill(batch, self._batch, self._rope, self.config, self.threads, self.separate_prefill, self.adapters)
        if self.seconds:
            self._run_timed()
        else:
            self._pool.run()
        return self._workspace.logits[:sampled, : self.config.vocab_size]

    def time_phases(self, on: bool = True) -> None:
        """From now on add up the time of each phase of a step in `seconds`. While it is off it costs nothing."""
        if on != bool(self.seconds):
            self.seconds = dict.fromkeys(self.phases, 0.0) if on else {}
            self._capacity = Capacity(0, 0, 0, 0, 0, 0)  # so that the threads get a `times` array, or none any more

    def close(self) -> None:
        self._pool.close()
        self._cache = None

    def _run_timed(self) -> None:
        """Elapsed seconds are divided among the phases by their ticks, averaged over threads."""
        self._workspace.times[:] = 0
        before = time.perf_counter()
        self._pool.run()
        elapsed = time.perf_counter() - before
        ticks = self._workspace.times.mean(axis=0)
        for phase, fraction in zip(self.phases, ticks / max(ticks.sum(), 1), strict=True):
            self.seconds[phase] += elapsed * float(fraction)

    def _allocate_workspace(self, capacity: Capacity) -> None:
        """Allocate memory for steps up to this size, and hand it to the threads."""
        assert self._cache is not None
        c, width = self.config, kv_cache.padded(self.config.head_dim)
        H, G, D, F = c.num_attention_heads, c.num_key_value_heads, c.hidden_size, c.intermediate_size
        rows = -(-capacity.rows // 16) * 16 + 16  # tiles may write past the last
        sampled = -(-capacity.sampled // 16) * 16 + 16
        low = low_columns(self.model.adapters)

        def floats(*sizes: int) -> np.ndarray:
            return aligned(int(np.prod(sizes)), np.float32).reshape(sizes)

        self._capacity, self._batch = capacity, empty_batch(capacity, c)
        self._workspace = step.Workspace(
            x=floats(rows, -(-D // UNIT) * UNIT),
            normed=activations(rows, D),
            q=floats(rows, H * width),
            k=floats(rows, G * width),
            v=floats(rows, G * width),
            attended=activations(rows, H * c.head_dim),
            gated=activations(rows, F),
            kv_partials=floats(max(capacity.slots, 1) * H, width),
            kv_partial_stats=floats(max(capacity.slots, 1) * H, 2),
            low=floats(rows if self.adapters else 0, low),
            aside=floats(rows if self.adapters else 0, -(-D // UNIT) * UNIT),
            sampled=floats(sampled, -(-D // UNIT) * UNIT),
            logits=floats(sampled, -(-c.vocab_size // 16) * 16),
            times=np.zeros((self.threads if self.seconds else 0, len(self.phases)), np.int64),
        )
        model, cache = self.model, self._cache

        def arguments(thread: int) -> tuple:
            own = step.ThreadWorkspace(
                normed=activations(32, D),
                attended=activations(32, H * c.head_dim),
                low=floats(32, low),
                gate_up=floats(step.PANEL_ROWS + 16, 64 * step.PANEL_GROUPS),
                tile=query_tile(c.group_size, c.head_dim, self.kv_cache_dtype),
                scratch=linear_scratch(max(D, F, H * c.head_dim)),
            )
            return self.threads, model, cache, self._batch, self._workspace, own

        with compile_cache.compiling(self._folder, f"step-{self.kv_cache_dtype}"):
            self._pool.assign(step.worker_loop, arguments)
