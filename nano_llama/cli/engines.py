"""The options that `generate`, `chat` and `serve` share: sampling, and what computes the model.

Volume 3 serves it in any case:

    engine   with its compiled kernels on a CPU, which need no torch; with PyTorch on a GPU
    torch    with Volume 2's model in PyTorch, on a CPU too
    numpy    with Volume 1's model in NumPy, every operation by hand; needs no torch

Tests: tests/cli/test_generate.py, tests/cli/test_chat.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from nano_llama.cli.common import Count, Whole
from nano_llama.core.errors import EnvironmentFault, UserError, install_command
from nano_llama.core.sampling import SamplingParams

if TYPE_CHECKING:
    from nano_llama.vol3_engine.llm import LLM

EngineName = Literal["engine", "torch", "numpy"]
Message = Mapping[str, Any]

SAMPLING = Group("Sampling", help="How the next token is chosen. The same seed gives the same text.", sort_key=10)
COMPUTE = Group("Computing", help="The engine that runs the model, its device and its number format.", sort_key=20)


@Parameter(name="*", group=SAMPLING)
@dataclass(frozen=True, kw_only=True)
class Sampling:
    """SamplingParams, as options."""

    temperature: float = 0.8
    "Randomness: 0 always takes the most likely token; 1 samples the model's own distribution."
    top_k: Whole = 0
    "Sample from the K most likely tokens; 0: all."
    top_p: float = 0.95
    "Nucleus sampling: sample from the smallest set of tokens with this total probability."
    min_p: float = 0.0
    "Drop tokens below this fraction of the top token's probability."
    repetition_penalty: float = 1.0
    "Above 1 discourages tokens that have already occurred."
    stop: Annotated[tuple[str, ...], Parameter(allow_leading_hyphen=True)] = ()
    "Stop before this text appears; may be given several times."
    seed: Whole | None = None
    "Random seed (default: random)."

    def params(self, max_tokens: int | None) -> SamplingParams:
        """As the engine takes them. Raises UserError for a value out of range."""
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
    """The engine that runs the model, its device and its number format."""

    engine: EngineName = "engine"
    "engine: compiled kernels on a CPU, PyTorch on a GPU; torch: Volume 2's model; numpy: Volume 1's, by hand."
    device: str = "auto"
    "auto, cpu, cuda, cuda:1 or mps. (numpy: cpu)"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    "Number format of the computation; auto: as stored in the file, half precision on a GPU. (numpy: float32)"
    quantization: str | None = None
    "Quantize while loading: int8, int4, or with exceptions as in int4,head=int4 (see nano-llama quantize --help)."
    threads: Count | None = None
    "CPU threads (default: one per core)."


def llm_arguments(compute: Compute) -> dict[str, Any]:
    """As LLM takes them. Raises UserError for a setting that the engine cannot honour, without loading anything."""
    from nano_llama.vol3_engine.settings import EngineSettings

    if compute.engine != "engine" and compute.quantization is not None:
        raise UserError(
            f"--quantization {compute.quantization} is for --engine engine.", hint="Leave one of the two out."
        )
    if compute.engine == "torch" and not has_torch():
        raise EnvironmentFault(
            "--engine torch needs the package 'torch', which is not installed.",
            hint=f"Install it with  {install_command('train')}  or leave --engine out.",
        )
    arguments: dict[str, Any] = {
        "runner": "auto" if compute.engine == "engine" else compute.engine,
        "device": compute.device,
        "dtype": compute.dtype,
        "quantization": compute.quantization,
        "num_threads": compute.threads,
    }
    EngineSettings(**arguments)
    return arguments


def load_llm(model: Path, compute: Compute, *, max_num_seqs: int = 1, **settings: Any) -> "LLM":
    """The model on the engine that was chosen. settings: more of LLM's arguments.

    Raises UserError for a setting that the engine cannot honour.
    """
    from nano_llama.vol3_engine.llm import LLM

    return LLM(model, **llm_arguments(compute), max_num_seqs=max_num_seqs, **settings)


def has_torch() -> bool:
    """Whether torch is installed; does not import it."""
    return find_spec("torch") is not None


def conversation_length(llm: "LLM", messages: Sequence[Message]) -> int:
    """Tokens of a conversation as the model will read it, including those that open the answer. Its images are read
    already (ImageReader.read).
    """
    from nano_llama.vol3_engine.image_prompts import messages_and_images

    assert llm.tokenizer is not None, "a chat has a tokenizer with a template"
    messages, images = messages_and_images(messages)
    length = len(llm.tokenizer.encode_chat(messages, add_generation_prompt=True))
    return length + sum(len(llm.images.ids_of(image)) - 1 for image in images if llm.images is not None)
