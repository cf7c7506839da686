"""One model in every program that can run it: three volumes, transformers, llama.cpp, the same text, the same logits.

Compared are the log-probabilities of all tokens at every position, which are the logits up to a constant that no
sampler sees, so that programs that only report probabilities can take part. The reference is Volume 1 in float64.
Not here: where two programs diverge (checkpoint.py). Tests: tests/verify/test_volumes.py.
"""

import dataclasses
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nano_llama.core.divergence import kl_of_log_probs, log_softmax
from nano_llama.core.errors import EnvironmentFault, NanoLlamaError
from nano_llama.formats import open_model, resolve_model, save_gguf
from nano_llama.tokenizer import Tokenizer
from nano_llama.verify.checkpoint import TEXT, load_transformers

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


Forward = Callable[[Sequence[int]], np.ndarray]  # ids (T,) -> logits (T,V), or log-probabilities


class Program(NamedTuple):
    """What can compute the model. `open(folder)` loads it once and gives its forward pass."""

    name: str
    precision: str
    needs: str | None  # the package without which it cannot take part
    tolerance: float  # the largest error that passes
    open: Callable[[Path], AbstractContextManager[Forward]]


def verify_volumes(path: str | Path, *, others: bool = True, text: str = TEXT) -> VolumesReport:
    """Compare the volumes with each other, and, if `others`, with transformers and llama.cpp where they are installed.

    path: a Hugging Face folder with a tokenizer. Raises UserError or FormatError where it cannot be read.
    """
    path = resolve_model(path)
    ids = Tokenizer.from_pretrained(path).encode(text)
    with volume1(path, np.float64) as forward:
        expected = log_softmax(forward(ids))
    report = VolumesReport(str(path), len(ids))
    for program in (*VOLUMES, *OTHERS) if others else VOLUMES:
        report.rows.append(compare(program, path, ids, expected))
    return report


def compare(program: Program, path: Path, ids: Sequence[int], expected: np.ndarray) -> Agreement:
    """Run one program and measure it against the reference's log-probabilities (T,V)."""
    if program.needs is not None and find_spec(program.needs) is None:
        return Agreement(program.name, program.precision, skipped=f"{program.needs} is not installed")
    try:
        with program.open(path) as forward:
            found = log_softmax(forward(ids))
    except EnvironmentFault as fault:
        return Agreement(program.name, program.precision, skipped=fault.message)
    except NanoLlamaError as error:
        error.message = f"{program.name}: {error.message}"
        raise
    return Agreement(
        program.name,
        program.precision,
        error=float(np.abs(found - expected).max() / np.abs(expected).max()),
        divergence=float(kl_of_log_probs(expected, found).mean()),
        same_choice=int((found.argmax(-1) == expected.argmax(-1)).sum()),
        tolerance=program.tolerance,
    )


@contextmanager
def volume1(path: Path, dtype: Any = np.float32) -> Iterator[Forward]:
    from nano_llama.vol1_numpy import Llama

    llama = Llama.from_pretrained(path, dtype=dtype)
    yield lambda ids: llama.forward(np.array([ids]))[0]


@contextmanager
def volume2(path: Path) -> Iterator[Forward]:
    import torch

    from nano_llama.vol2_torch import Llama

    llama = Llama.from_pretrained(path)
    with torch.no_grad():
        yield lambda ids: llama(torch.tensor([ids]))[0].numpy()


@contextmanager
def volume3(path: Path) -> Iterator[Forward]:
    """The engine's own step: the text is a prompt, and the logits of every row are returned."""
    from nano_llama.verify.divergence import prompt_logits
    from nano_llama.vol3_engine.llm import LLM

    with closing(LLM(path, device="cpu", dtype="float32", max_num_seqs=1)) as llm:
        yield lambda ids: prompt_logits(llm, ids)


@contextmanager
def transformers(path: Path) -> Iterator[Forward]:
    import torch

    llama = load_transformers(path)
    with torch.no_grad():
        yield lambda ids: llama(torch.tensor([ids])).logits[0].numpy()


@contextmanager
def llama_cpp(path: Path) -> Iterator[Forward]:
    """Our GGUF of the model, in float32, read by llama.cpp."""
    from llama_cpp import Llama

    with tempfile.TemporaryDirectory() as folder, open_model(path) as weights:
        file = Path(folder) / "model.gguf"
        save_gguf(file, weights.config, weights, Tokenizer.from_pretrained(path), dtype="F32")
        context = weights.config.max_position_embeddings
        llama = Llama(str(file), n_ctx=context, logits_all=True, verbose=False)

        def forward(ids: Sequence[int]) -> np.ndarray:
            llama.reset()
            llama.eval(list(ids))
            return np.array(llama.scores[: len(ids)])

        yield forward
        llama.close()


VOLUMES = (
    Program("Volume 1, NumPy", "float32", None, FLOAT32, volume1),
    Program("Volume 2, PyTorch", "float32", "torch", FLOAT32, volume2),
    Program("Volume 3, the engine", "float32", None, FLOAT32, volume3),
)
OTHERS = (
    Program("transformers", "float32", "transformers", FLOAT32, transformers),
    Program("llama.cpp, through our GGUF", "F32, cache F16", "llama_cpp", FLOAT16_CACHE, llama_cpp),
)
