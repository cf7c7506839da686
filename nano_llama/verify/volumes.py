"""One model in every program that can run it: three volumes, transformers, llama.cpp, the same text, the same logits.

Compared are the log-probabilities of all tokens at every position, which are the logits up to a constant that no
sampler sees, so that programs that only report probabilities can take part. The reference is Volume 1 in float64.
Not here: where two programs diverge (checkpoint.py). Tests: tests/verify/test_volumes.py.
"""

import dataclasses
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from nano_llama.core.errors import EnvironmentFault, NanoLlamaError
from nano_llama.formats import open_model, resolve_model, save_gguf
from nano_llama.tokenizer import Tokenizer
from nano_llama.verify.checkpoint import TEXT, load_transformers
from nano_llama.verify.divergence import log_softmax

REFERENCE = "Volume 1, NumPy, float64"
FLOAT32 = 1e-4  # the largest error that passes where everything is computed in float32
FLOAT16_CACHE = 2e-3  # where keys and values are kept in 16 bits


@dataclass(frozen=True)
class Agreement:
    """One program beside the reference. `skipped` says why it could not take part; its figures are then None."""

    program: str
    precision: str
    error: float | None = None  # max|a-b| / max|b| over all log-probabilities
    divergence: float | None = None  # mean KL(reference || program), nats per position
    same_choice: int | None = None  # positions whose most likely token is the reference's
    tolerance: float | None = None
    skipped: str | None = None

    @property
    def ok(self) -> bool:
        return self.error is None or (self.tolerance is not None and self.error <= self.tolerance)


@dataclass
class VolumesReport:
    """What was compared. `ok`: every program that could take part agrees."""

    path: str
    positions: int
    rows: list[Agreement] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return all(row.ok for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        return {"ok": self.ok, "reference": REFERENCE, **dataclasses.asdict(self)}


def verify_volumes(path: str | Path, *, others: bool = True, text: str = TEXT) -> VolumesReport:
    """Compare the volumes with each other, and, if `others`, with transformers and llama.cpp where they are installed.

    path: a Hugging Face folder with a tokenizer. Raises UserError or FormatError where it cannot be read.
    """
    path = resolve_model(path)
    ids = Tokenizer.from_pretrained(path).encode(text)
    expected = volume1(path, ids, np.float64)
    report = VolumesReport(str(path), len(ids))
    programs: list[tuple[str, str, str | None, float, Callable[[], np.ndarray]]] = [
        ("Volume 1, NumPy", "float32", None, FLOAT32, lambda: volume1(path, ids, np.float32)),
        ("Volume 2, PyTorch", "float32", "torch", FLOAT32, lambda: volume2(path, ids)),
        ("Volume 3, the engine", "float32", None, FLOAT32, lambda: volume3(path, ids)),
    ]
    if others:
        programs += [
            ("transformers", "float32", "transformers", FLOAT32, lambda: transformers(path, ids)),
            ("llama.cpp, through our GGUF", "F32, cache F16", "llama_cpp", FLOAT16_CACHE, lambda: llama_cpp(path, ids)),
        ]
    for program, precision, needs, tolerance, run in programs:
        report.rows.append(compare(program, precision, needs, tolerance, run, expected))
    return report


def compare(
    program: str, precision: str, needs: str | None, tolerance: float, run: Callable[[], np.ndarray], expected: Any
) -> Agreement:
    """Run one program and measure it against the reference's log-probabilities (T,V)."""
    if needs is not None and find_spec(needs) is None:
        return Agreement(program, precision, skipped=f"{needs} is not installed")
    try:
        found = run()
    except EnvironmentFault as fault:
        return Agreement(program, precision, skipped=fault.message)
    except NanoLlamaError as error:
        error.message = f"{program}: {error.message}"
        raise
    return Agreement(
        program,
        precision,
        error=float(np.abs(found - expected).max() / np.abs(expected).max()),
        divergence=float((np.exp(expected) * (expected - found)).sum(-1).mean()),
        same_choice=int((found.argmax(-1) == expected.argmax(-1)).sum()),
        tolerance=tolerance,
    )


def volume1(path: Path, ids: Sequence[int], dtype: Any) -> np.ndarray:
    from nano_llama.vol1_numpy import Llama

    return log_softmax(Llama.from_pretrained(path, dtype=dtype).forward(np.array([ids]))[0])


def volume2(path: Path, ids: Sequence[int]) -> np.ndarray:
    import torch

    from nano_llama.vol2_torch import Llama

    with torch.no_grad():
        return log_softmax(Llama.from_pretrained(path)(torch.tensor([ids]))[0].numpy())


def volume3(path: Path, ids: Sequence[int]) -> np.ndarray:
    """Through its public API: every prefix of the text is a request for one token and all log-probabilities."""
    from nano_llama.core.sampling import SamplingParams
    from nano_llama.vol3_engine.llm import LLM

    llm = LLM(path, device="cpu", dtype="float32")
    size = llm.config.vocab_size
    prefixes = [list(ids[: end + 1]) for end in range(len(ids))]
    one_token = SamplingParams(temperature=0.0, max_tokens=1, logprobs=size, ignore_eos=True)
    table = np.full((len(ids), size), -np.inf)  # (T,V)
    for row, out in zip(table, llm.generate(prefixes, one_token), strict=True):
        found = out.outputs[0].logprobs
        assert found is not None, "they were asked for"
        for token, entry in found[0].items():
            row[token] = entry.logprob
    return table


def transformers(path: Path, ids: Sequence[int]) -> np.ndarray:
    import torch

    with torch.no_grad():
        return log_softmax(load_transformers(path)(torch.tensor([ids])).logits[0].numpy())


def llama_cpp(path: Path, ids: Sequence[int]) -> np.ndarray:
    """Our GGUF of the model, in float32, read by llama.cpp."""
    from llama_cpp import Llama

    with tempfile.TemporaryDirectory() as folder, open_model(path) as weights:
        file = Path(folder) / "model.gguf"
        save_gguf(file, weights.config, weights, Tokenizer.from_pretrained(path), dtype="F32")
        llama = Llama(str(file), n_ctx=len(ids), logits_all=True, verbose=False)
        llama.eval(list(ids))
        logits = np.array(llama.scores[: len(ids)])
        llama.close()
    return log_softmax(logits)
