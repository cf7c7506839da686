"""The three ways to compute a model, behind one small face, and the options that `generate` and `chat` share.

Not here: the engines themselves. Tests: tests/cli/test_generate.py, tests/cli/test_chat.py.

    engine   Volume 3: kernels of our own on a CPU, which need no torch; PyTorch on a GPU
    torch    Volume 3 over Volume 2's model in PyTorch, the plain twin of those kernels
    numpy    Volume 1's model in NumPy, every operation by hand; needs no torch
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from cyclopts import Group, Parameter

from nano_llama.cli.common import Count, Whole
from nano_llama.core.config import LlamaConfig
from nano_llama.core.errors import EnvironmentFault, UserError
from nano_llama.core.sampling import SamplingParams
from nano_llama.tokenizer import Tokenizer

EngineName = Literal["engine", "torch", "numpy"]
Message = Mapping[str, str]

SAMPLING = Group("Sampling", help="How the next token is chosen. The same seed gives the same text.", sort_key=10)
COMPUTE = Group("Computing", help="What computes the model, and where.", sort_key=20)


@Parameter(name="*", group=SAMPLING)
@dataclass(frozen=True, kw_only=True)
class Sampling:
    """SamplingParams, as options."""

    temperature: float = 0.8
    "Randomness: 0 always takes the likeliest token; 1 is the model's own distribution."
    top_k: Whole = 0
    "Choose among the K likeliest tokens; 0: all."
    top_p: float = 1.0
    "Choose among the fewest likeliest tokens that hold this share of the probability."
    min_p: float = 0.0
    "Leave out tokens less than this times as likely as the likeliest."
    repetition_penalty: float = 1.0
    "Above 1 discourages tokens that occurred already."
    stop: Annotated[tuple[str, ...], Parameter(allow_leading_hyphen=True)] = ()
    "End before this text appears; may be given several times."
    seed: Whole | None = None
    "Of the random numbers; drawn afresh when left out."

    def params(self, max_tokens: int | None) -> SamplingParams:
        """As the engines take them. Raises UserError for a value out of range."""
        return SamplingParams(
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            min_p=self.min_p,
            repetition_penalty=self.repetition_penalty,
            stop=self.stop or None,
            seed=self.seed,
            max_tokens=max_tokens,
        )


@Parameter(name="*", group=COMPUTE)
@dataclass(frozen=True, kw_only=True)
class Compute:
    """Which engine, on which device, in which number format."""

    engine: EngineName = "engine"
    "engine: Volume 3, the fastest here; torch: its plain twin over Volume 2; numpy: Volume 1, by hand."
    device: str = "auto"
    "auto, cpu, cuda, cuda:1 or mps. (numpy: cpu)"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    "Number format of the computation; auto: as the file stores its numbers, half precision on a GPU."
    quantization: str | None = None
    "Quantize while loading: int8, int4, or with exceptions as in int4,head=int4 (see nano-llama quantize --help)."
    threads: Count | None = None
    "CPU threads; one for each core when left out."


class Speaker(Protocol):
    """What `generate` and `chat` need of an engine."""

    @property
    def config(self) -> LlamaConfig: ...

    @property
    def tokenizer(self) -> Tokenizer | None: ...

    def stream(self, prompt: Any, sampling_params: SamplingParams | None = None) -> Iterator[Any]:
        """Pieces with .text, .token_id and, on the last, .output: vol3_engine.outputs.TextPiece."""
        ...


def open_speaker(model: Path, compute: Compute) -> Speaker:
    """Load a model for one of the engines. Raises UserError for a setting that the engine cannot honour."""
    if compute.engine != "engine":
        for name, given in (("quantization", compute.quantization), ("threads", compute.threads)):
            if given is not None:
                raise UserError(f"--{name} {given} is for --engine engine.", hint="Leave one of the two out.")
    if compute.engine == "numpy":
        from nano_llama.cli.numpy_speaker import NumpySpeaker

        return NumpySpeaker.load(model, compute.device, compute.dtype)
    from nano_llama.vol3_engine.llm import LLM

    if compute.engine == "engine":
        return LLM(
            model, device=compute.device, dtype=compute.dtype, quantization=compute.quantization, max_num_seqs=1,
            num_threads=compute.threads,
        )  # fmt: skip
    if not has_torch():
        raise EnvironmentFault(
            "--engine torch needs the package 'torch', which is not installed.",
            hint='Install it with  pip install "nano-llama-engine[train]"  or leave --engine out.',
        )
    return LLM.from_torch(model, device=compute.device, dtype=compute.dtype, max_num_seqs=1)


def has_torch() -> bool:
    """Whether torch is installed, told without importing it."""
    return find_spec("torch") is not None


def conversation_length(speaker: Speaker, messages: Sequence[Message]) -> int:
    """Tokens of a conversation as the model will read it, the opening of the answer included."""
    assert speaker.tokenizer is not None, "a chat begins with a tokenizer that has a template"
    return len(speaker.tokenizer.encode_chat(messages, add_generation_prompt=True))
