"""What each quantization scheme costs on a text: the engine with it beside the same weights in float32.

    costs = compare_schemes("nano_gpt", ("int8", "int4"), tokens, num_bytes, context=512)
    costs[1].divergence.mean_kl.mean

All models are in memory at once and read the text in step, so that each computes every position once; logits are there
for ROWS positions at a time. A scheme is computed as `LLM(path, quantization=scheme)` does: with activations of 8 bits
where weights are blocks, and keys and values in bfloat16. Both are part of the cost. The computation is the CPU
kernels', which are the only ones that multiply with blocks.

Not here: how long it takes (bench/quantization.py). Tests: tests/verify/test_quantization.py.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nano_llama.core.divergence import log_softmax
from nano_llama.core.errors import EnvironmentFault, FormatError
from nano_llama.core.machine import available_bytes
from nano_llama.core.units import size_text
from nano_llama.core.variants import require_llama
from nano_llama.data.batches import Tokens, windows
from nano_llama.formats import open_text_model
from nano_llama.formats.kinds import Kind
from nano_llama.formats.mapping import TensorMapping
from nano_llama.formats.quantization_scheme import Scheme, bits_per_weight
from nano_llama.formats.quantized import quantized_nbytes
from nano_llama.verify.divergence import Divergence, Estimate, estimate, logits_in_parts
from nano_llama.vol3_engine.blocks import BLOCK_SIZE, blocks_for
from nano_llama.vol3_engine.cpu.runner import CpuRunner

REFERENCE = "float32"
SCHEMES = ("int8", "int4", "int4-sym")
ROWS = 128  # with a vocabulary of 49,152 their logits take 25 MB
CACHED_ROWS = 4  # measured at a time: in float64 they stay in a core's cache, which is ten times as fast as all at once


@dataclass(frozen=True)
class Cost:
    """A scheme: its size, and how far the model is from the reference with it."""

    scheme: str
    bits_per_weight: float  # of the matrices, scales included
    nbytes: int  # of the tensors that `nano-llama quantize` writes
    divergence: Divergence
    reference: Divergence  # float32's, from itself: its loss
    num_bytes: int  # of the text that was predicted

    @property
    def perplexity(self) -> float:
        return math.exp(min(self.divergence.loss, 700.0))

    @property
    def loss_change(self) -> Estimate:
        """Of the nats per token. Its error is much smaller than the loss's own: both models read the same tokens."""
        return estimate(self.divergence.nats - self.reference.nats)

    def to_json(self) -> dict[str, Any]:
        found, change = self.divergence, self.loss_change
        return {
            "scheme": self.scheme,
            "bits_per_weight": round(self.bits_per_weight, 3),
            "bytes": self.nbytes,
            "loss": found.loss,
            "loss_change": change.mean,
            "loss_change_standard_error": change.error,
            "perplexity": self.perplexity,
            "bits_per_byte": found.bits_per_byte(self.num_bytes),
            "mean_kl": found.mean_kl.mean,
            "mean_kl_standard_error": found.mean_kl.error,
            "median_kl": float(np.median(found.kl)),
            "kl_99": float(np.percentile(found.kl, 99)),
            "max_kl": float(found.kl.max()),
            "same_choice": found.same_choice,
        }


def stored_blocks(weights: TensorMapping) -> dict[str, int]:
    """{kind: number of tensors} of what is quantized in the file already."""
    kinds = Counter(weights.dtype_name(name) for name in weights)
    floats = {"F64", *(kind for kind in Kind if kind.block_size == 1)}
    return {kind: count for kind, count in kinds.items() if kind not in floats}


def compare_schemes(
    model: Path,
    schemes: Sequence[str],
    tokens: Tokens,
    num_bytes: int,
    *,
    context: int,
    most_tokens: int | None = None,
    num_threads: int | None = None,
    on_part: Callable[[int], None] = lambda counted: None,
) -> list[Cost]:
    """The cost of the reference, which is float32, and of each scheme, on consecutive windows of a text.

    tokens, num_bytes: the text, and its size. Every token but the first is predicted once, up to most_tokens (None:
    all). on_part is called with the number of tokens so far. Raises UserError for a scheme that is not known or does
    not fit, EnvironmentFault where the memory does not suffice.
    """
    names = (REFERENCE, *(scheme for scheme in dict.fromkeys(schemes) if scheme != REFERENCE))
    with open_text_model(model) as weights:
        require_llama(weights.config, "what computes with quantized weights")
        kinds = {name: Scheme.parse(name).kinds(weights.config) for name in names}
        bits = {name: bits_per_weight(each, weights.config) for name, each in kinds.items()}
        sizes = {name: quantized_nbytes(weights, each) for name, each in kinds.items()}
    check_room(sum(sizes.values()))
    parts: dict[str, list[Divergence]] = {name: [] for name in names}
    counted = 0
    with ExitStack() as stack:
        runners: list[CpuRunner] = []
        for name in names:
            runners.append(CpuRunner.load(model, num_threads=num_threads, quantization=name))
            stack.callback(runners[-1].close)
            runners[-1].allocate(blocks_for(context), BLOCK_SIZE)
        for ids, targets in spans(tokens, context, most_tokens):
            logits = zip(*(logits_in_parts(runner, ids, ROWS) for runner in runners), strict=True)
            for start, rows in zip(range(0, len(ids), ROWS), logits, strict=True):
                for at in range(0, len(rows[0]), CACHED_ROWS):
                    few = slice(at, at + CACHED_ROWS)
                    expected = log_softmax(rows[0][few])  # (CACHED_ROWS,V)
                    for name, own in zip(names, rows, strict=True):
                        parts[name].append(Divergence.measure(expected, own[few], targets[start:][few]))
                counted += len(rows[0])
                on_part(counted)
    head = round(num_bytes * counted / (tokens.num_tokens - 1))  # of the text, where it is not read whole
    found = {name: Divergence.join(parts[name]) for name in names}
    reference = found[REFERENCE]
    if not np.isfinite(reference.loss):
        raise FormatError(f"{model}: its loss is {reference.loss}: the weights are damaged, or training diverged.")
    return [Cost(name, bits[name], sizes[name], found[name], reference, head) for name in names]


def check_room(needed: int) -> None:
    """Raise EnvironmentFault where all models at once would not fit into memory."""
    free = available_bytes()
    if free is not None and needed > free:
        raise EnvironmentFault(
            f"The models to compare take {size_text(needed)} of memory together; {size_text(free)} are free.",
            hint="Compare fewer at a time:  --to int4",
        )


def spans(tokens: Tokens, context: int, most: int | None) -> Iterator[tuple[list[int], np.ndarray]]:
    """Windows of a text, the last one cut so that `most` tokens are predicted: ids, and what follows each, (T,)."""
    left = tokens.num_tokens if most is None else most
    for start, length in windows(tokens, context):
        length = min(length, left)
        if not length:
            return
        left -= length
        window = np.asarray(tokens.read(start, length + 1), np.int64)  # (T+1,)
        yield window[:-1].tolist(), window[1:]
