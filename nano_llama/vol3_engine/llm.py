"""LLM: load a model, generate text. The engine's public API.

    llm = LLM("model.gguf")
    for out in llm.generate(["Once upon a time"], SamplingParams(temperature=0.8, max_tokens=64, seed=1)):
        print(out.text)

Not here: the loop of steps (engine.py), how a token is sampled (core/sampling).
Tests: tests/vol3/test_llm.py, tests/parity/test_llm_transformers.py.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nano_llama.core.errors import UserError, import_extra
from nano_llama.core.sampling import SamplingParams
from nano_llama.core.variants import variants
from nano_llama.vol3_engine.adapters import AdapterChoice, Default, named_folders
from nano_llama.vol3_engine.engine import Engine, TokenEvent
from nano_llama.vol3_engine.image_reader import Encode, ImageReader
from nano_llama.vol3_engine.outputs import Logprob, RequestOutput, TextPiece
from nano_llama.vol3_engine.requests import Request, Requests, plain
from nano_llama.vol3_engine.runner import Runner
from nano_llama.vol3_engine.settings import EngineSettings
from nano_llama.vol3_engine.trace import Trace

if TYPE_CHECKING:
    from nano_llama import vol1_numpy, vol2_torch
    from nano_llama.tokenizer import Tokenizer
    from nano_llama.vol1_numpy.vision import VisionLanguageModel

Prompt = str | Sequence[int] | Mapping[str, Any]
Message = Mapping[str, Any]


class LLM:
    """A model in memory, ready to generate.

    path: a Hugging Face folder, a .gguf, a training run's folder, or a hub name. adapter: a folder in PEFT's format,
    whose adapter every request gets that chooses none, and whose tokenizer replaces the model's where it has one; or
    {name: folder}, of which requests choose by name and get the base model where they do not (adapters.py). trace: a
    file to which the scheduler's decisions are written (trace.py). encoder: of a model that reads images, what computes
    rows (N,n,D) of pixel_values (N,3,S,S); None: Volume 1's. The others are EngineSettings' fields (settings.py).
    Raises UserError for what cannot be honoured, FormatError for a damaged file, EnvironmentFault if the machine
    lacks a device, a package or memory.

    SamplingParams(structured_outputs={"json": schema}) makes a text follow a JSON schema; {"regex": ...}, {"choice":
    [...]} and {"grammar": ...} are the other forms (constraints.py).

    A request's tokens, greedy or for a seed, do not depend on what else is in the batch: with the CPU kernels to the
    last bit; with PyTorch and NumPy up to the rounding of matrix products, whose shapes differ.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        adapter: str | Path | Mapping[str, str | Path] | None = None,
        runner: str = "auto",
        device: str = "auto",
        dtype: str = "auto",
        quantization: str | None = None,
        kv_cache_dtype: str = "auto",
        kv_cache_memory: int | str = "2GiB",
        max_num_seqs: int = 32,
        max_num_batched_tokens: int = 512,
        prefix_caching: bool = True,
        num_threads: int | None = None,
        trace: str | Path | None = None,
        encoder: Encode | None = None,
    ):
        settings = EngineSettings(
            runner=runner,
            device=device,
            dtype=dtype,
            quantization=quantization,
            kv_cache_dtype=kv_cache_dtype,
            kv_cache_memory=kv_cache_memory,
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=max_num_batched_tokens,
            prefix_caching=prefix_caching,
            num_threads=num_threads,
        )
        from nano_llama.formats import resolve_model

        folders, default = named_folders(adapter)
        model = resolve_model(path)
        own = folders[default] if default is not None and (folders[default] / "tokenizer.json").is_file() else None
        tokenizer = _tokenizer_of(own or model)
        images = load_images(model, settings, encoder, tokenizer)
        self._assemble(load_runner(model, settings, folders), tokenizer, settings, trace, default, images)

    @classmethod
    def from_model(
        cls,
        model: "vol1_numpy.Llama | vol2_torch.Llama | VisionLanguageModel",
        tokenizer: "Tokenizer | None",
        *,
        num_threads: int | None = None,
        **settings: Any,
    ) -> "LLM":
        """Serve a Volume 1 or Volume 2 model that is in memory, say one in training; its weights are not copied.

        The weights may change between requests and amid one: what was cached for others is computed again.
        settings: those of `from_runner`.
        """
        runner, images = _of_model(model, EngineSettings(num_threads=num_threads).num_threads)
        return cls.from_runner(runner, tokenizer, images=images, **settings)

    @classmethod
    def from_runner(
        cls,
        runner: Runner,
        tokenizer: "Tokenizer | None",
        *,
        trace: str | Path | None = None,
        images: ImageReader | None = None,
        **settings: Any,
    ) -> "LLM":
        """Serve any runner. images: what reads them, if the model does. settings: max_num_seqs, max_num_batched_tokens,
        kv_cache_memory, prefix_caching.

        Raises UserError for those that concern loading a model or making a runner.
        """
        for name in ("adapter", "device", "dtype", "quantization", "kv_cache_dtype", "num_threads"):
            if name in settings:
                raise UserError(
                    f"{name}={settings[name]!r} does not apply to a model that is already loaded.",
                    hint="Leave it out, or load the model with LLM(path, ...).",
                )
        llm = cls.__new__(cls)
        llm._assemble(runner, tokenizer, EngineSettings(**settings), trace, images=images)
        return llm

    def _assemble(
        self,
        runner: Runner,
        tokenizer: "Tokenizer | None",
        settings: EngineSettings,
        trace: str | Path | None,
        default_adapter: str | None = None,
        images: ImageReader | None = None,
    ) -> None:
        self.config = runner.config
        self.tokenizer = tokenizer
        self.settings = settings
        self.images = images  # None: the model reads text only
        never = () if images is None else (images.image_token_id,)
        self.engine = Engine(runner, settings, Trace(trace) if trace is not None else None, never)
        self.adapters: tuple[str, ...] = getattr(runner, "adapters", ())  # names; a runner without any need not say so
        self._requests = Requests(
            tokenizer, self.config, self.engine.scheduler.cache_tokens, self.adapters, default_adapter, images
        )

    def close(self) -> None:
        """Release threads and memory. The LLM cannot be used afterwards. May be called twice."""
        self.engine.close()

    def __enter__(self) -> "LLM":
        self.engine.require_open()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"LLM({self.config.shape_text}; {self.engine!r}, {self.tokenizer!r})"

    def reset_prefix_cache(self) -> None:
        """Discard the keys and values of earlier prompts. Changed weights are noticed without it."""
        self.engine.reset_prefix_cache()

    def request(
        self,
        prompt: Any,
        params: SamplingParams,
        number: int = 0,
        *,
        adapter: AdapterChoice = Default.ADAPTER,
        cache_salt: str | None = None,
        **template: Any,
    ) -> Request:
        """A prompt or a conversation, checked and ready for `engine.add`. Raises UserError.

        adapter: its name, or None for the base model; left out, the one that the LLM was loaded with.
        cache_salt: cached keys and values are shared with requests of the same salt only (None is one of them).
        template: for a conversation, arguments of Tokenizer.encode_chat.
        """
        self.engine.require_open()
        if is_conversation(prompt):
            return self._requests.from_messages(number, prompt, params, adapter, cache_salt, **template)
        if template:
            raise UserError(f"{next(iter(template))} is for the messages of a conversation; this prompt is not one.")
        return self._requests.from_prompt(number, prompt, params, adapter, cache_salt)

    def output_of(self, request: Request) -> RequestOutput:
        """The result of a request whose sequences have finished."""
        return self._requests.output(request)

    def piece_of(self, request: Request, event: TokenEvent, *, last: bool) -> TextPiece:
        """What a stream shows of an event. last: no other event of the request follows."""
        return self._requests.piece(request, event, last=last)

    def prompt_logprobs_of(self, request: Request) -> list[dict[int, Logprob] | None] | None:
        """As RequestOutput.prompt_logprobs, and complete before the request's first event."""
        return self._requests.prompt_logprobs(request)

    # -- generating -------------------------------------------------------------------------------------------------

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        adapter: AdapterChoice | Sequence[AdapterChoice] = Default.ADAPTER,
        progress: bool = False,
    ) -> list[RequestOutput]:
        """Continue each prompt. One result per prompt, in their order (a list also for a single prompt).

        prompts: a string, a list of token ids, or a list of these. Special tokens in a string are read as plain text.
        For a model that reads images also {"prompt": "<image>What is this?", "images": [...]}: for each <image> a file,
        its bytes, an array (height, width, 3) of bytes or Pillow's image, resized and split as its folder says.
        sampling_params: one for all prompts, or one for each. adapter: the name of one for all, or of one for each
        (None: the base model). progress: show a progress bar on stderr.
        """
        self.engine.require_open()
        listed = _listed(prompts)
        requests = [self._requests.from_prompt(*entry) for entry in _numbered(listed, sampling_params, adapter)]
        return self._run(requests, progress)

    def chat(
        self,
        messages: Sequence[Message] | Sequence[Sequence[Message]],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        adapter: AdapterChoice | Sequence[AdapterChoice] = Default.ADAPTER,
        progress: bool = False,
        **template: Any,
    ) -> list[RequestOutput]:
        """Answer a conversation, [{"role": "user", "content": "..."}, ...], or each of several, as `generate` does.

        The model's chat template formats it. An unset max_tokens means the end of the answer. template: arguments of
        Tokenizer.encode_chat, such as tools. Raises UserError if the model has no template, or it does not read them.
        """
        if isinstance(messages, str) or not hasattr(messages, "__iter__"):
            raise UserError(
                f"messages={messages!r:.80} must be a list of messages.",
                hint='For example [{"role": "user", "content": "..."}]. Use generate for plain text.',
            )
        self.engine.require_open()
        listed = [messages] if is_conversation(messages) else list(messages)
        requests = [
            self._requests.from_messages(*entry, **template) for entry in _numbered(listed, sampling_params, adapter)
        ]
        return self._run(requests, progress)

    def stream(
        self,
        prompt: Prompt | Sequence[Message],
        sampling_params: SamplingParams | None = None,
        *,
        adapter: AdapterChoice = Default.ADAPTER,
    ) -> Iterator[TextPiece]:
        """One prompt or conversation, token by token; the pieces of n samples alternate, each with its `.index`.

        The texts of a sample's pieces join to the text that `generate` returns, their logprobs to its logprobs. The
        last piece carries the whole result as `.output`. Closing the iterator stops the work.
        """
        params = sampling_params or SamplingParams()
        if not isinstance(params, SamplingParams):
            raise UserError(f"sampling_params={params!r:.80} must be a SamplingParams: a stream takes one prompt.")
        return self._stream(self.request(prompt, params, adapter=adapter))

    def _stream(self, request: Request) -> Iterator[TextPiece]:
        unfinished = len(request.sequences)
        for event in self.engine.run(request.sequences):
            unfinished -= event.last
            yield self.piece_of(request, event, last=not unfinished)

    def _run(self, requests: list[Request], progress: bool) -> list[RequestOutput]:
        sequences = [sequence for request in requests for sequence in request.sequences]
        with _ProgressBar(len(sequences)) if progress else nullcontext(_silent) as advance:
            for event in self.engine.run(sequences):
                advance(event.last)
        return [self._requests.output(request) for request in requests]


def _of_model(model: Any, threads: int | None) -> tuple[Runner, ImageReader | None]:
    """The runner of a model of Volume 1 or 2, and what reads images for one that does. Weights may change, so rows are
    not kept.
    """
    from nano_llama.vol1_numpy import Llama

    llama = getattr(model, "language_model", model)
    encoder: Encode | None = None if llama is model else model.encode
    runner: Runner
    if isinstance(llama, Llama):
        from nano_llama.vol3_engine.runner.numpy import NumpyRunner

        runner = NumpyRunner(llama, threads)
    else:
        from nano_llama.vol3_engine.runner.torch import TorchRunner, encoder_of

        runner = TorchRunner(llama, threads)
        encoder = None if llama is model else encoder_of(model)
    return runner, None if encoder is None else ImageReader(model.config, encoder, cache_bytes=0)


def load_images(
    model: Path, settings: EngineSettings, encoder: Encode | None, tokenizer: "Tokenizer | None"
) -> ImageReader | None:
    """What reads images for the model; None: it reads text only. Raises UserError, FormatError."""
    from nano_llama.formats import reads_images

    if not reads_images(model):
        if encoder is not None:
            raise UserError(f"encoder: {model} reads text only.", hint="Leave it out.")
        return None
    return ImageReader.load(model, tokenizer, encoder, settings.num_threads)


def load_runner(model: Path, settings: EngineSettings, adapters: Mapping[str, Path] | None = None) -> Runner:
    """Load the model into the runner that the settings name, and adapters (name -> folder) beside it.

    Of a model that reads images it is the LLaMA, which adapters are for: `load_images` is for the rest.
    Raises UserError for settings that it cannot honour.
    """
    name = settings.runner
    if name == "auto":
        name = "torch" if _on_gpu(settings.device) else _runner_on_cpu(model)
    if name == "cpu":
        from nano_llama.vol3_engine.cpu.runner import CpuRunner

        _refuse(settings, name, device=("auto", "cpu"))
        return CpuRunner.load(
            model, settings.dtype, settings.kv_cache_dtype, settings.num_threads, quantization=settings.quantization,
            adapters=adapters,
        )  # fmt: skip
    _refuse(settings, name, quantization=(None,), kv_cache_dtype=("auto",))
    if name == "numpy":
        from nano_llama.vol3_engine.runner.numpy import NumpyRunner

        _refuse(settings, name, device=("auto", "cpu"), dtype=("auto", "float32"))
        return NumpyRunner.load(model, settings.num_threads, adapters=adapters)
    import_extra("torch", "train", "The Torch runner")
    from nano_llama.vol3_engine.runner.torch import TorchRunner

    return TorchRunner.load(model, settings.device, settings.dtype, settings.num_threads, adapters=adapters)


def _runner_on_cpu(model: Path) -> str:
    """Compiled kernels, which compute LLaMA's form alone; of another one (core/variants.py) Volume 2 or 1."""
    from nano_llama.formats import detect, read_config, reads_images

    if reads_images(model) or detect(model) == "gguf" or not variants(read_config(model)):
        return "cpu"
    return "torch" if find_spec("torch") else "numpy"


def _refuse(settings: EngineSettings, runner: str, **honoured: tuple) -> None:
    """Raise UserError for a setting whose value the runner cannot honour."""
    for name, values in honoured.items():
        value = getattr(settings, name)
        if value not in values:
            other = 'device="cpu"' if settings.runner == "auto" else "another runner"
            raise UserError(
                f"{name}={value!r} is not supported by the {runner} runner.", hint=f"Leave it out, or use {other}."
            )


def _on_gpu(device: str) -> bool:
    """Whether that device is a GPU. Raises UserError, EnvironmentFault."""
    if device == "cpu" or (device == "auto" and not _may_have_gpu()):
        return False
    import_extra("torch", "train", "Generating text on a GPU")
    from nano_llama.vol3_engine.runner.torch import device_type

    return device_type(device) != "cpu"


def _may_have_gpu() -> bool:
    """Whether to ask PyTorch, whose import takes seconds: only if both a GPU driver and PyTorch are installed."""
    driver = sys.platform == "darwin" or any(Path(path).exists() for path in ("/dev/nvidia0", "/dev/kfd", "/dev/dxg"))
    return driver and find_spec("torch") is not None


def _tokenizer_of(model: Path) -> "Tokenizer | None":
    """The tokenizer inside a .gguf, in a folder, or beside a file of weights; None if there is none."""
    from nano_llama.formats import detect
    from nano_llama.tokenizer import Tokenizer

    place = model if model.is_dir() or detect(model) == "gguf" else model.parent
    return None if place.is_dir() and not any(place.glob("tokenizer*")) else Tokenizer.from_pretrained(place)


def _listed(prompts: Any) -> list[Any]:
    """One prompt or several -> a list of prompts. A flat list of integers is one prompt."""
    if isinstance(prompts, str | Mapping):
        return [prompts]
    if not hasattr(prompts, "__iter__") or isinstance(prompts, bytes | bytearray):
        raise UserError(f"prompts={prompts!r:.80} must be a string, a list of token ids, or a list of these.")
    listed = [plain(entry) for entry in plain(prompts)]
    return [listed] if listed and all(isinstance(entry, int) for entry in listed) else listed


def is_conversation(value: Any) -> bool:
    """Whether it is a list of messages, not a prompt or a list of conversations."""
    return isinstance(value, list | tuple) and len(value) > 0 and all(isinstance(entry, Mapping) for entry in value)


def _numbered(prompts: list[Any], params: Any, adapter: Any) -> list[tuple[int, Any, SamplingParams, Any]]:
    """Each prompt with its number, its SamplingParams and its choice of an adapter."""
    if params is None:
        params = SamplingParams()
    adapters = adapter if isinstance(adapter, list | tuple) else [adapter] * len(prompts)
    if len(adapters) != len(prompts):
        raise UserError(
            f"{len(prompts)} prompts came with {len(adapters)} adapters.",
            hint="Give the name of one adapter for all prompts, or of one for each.",
        )
    listed = [params] * len(prompts) if isinstance(params, SamplingParams) else params
    if not isinstance(listed, list | tuple) or not all(isinstance(entry, SamplingParams) for entry in listed):
        raise UserError(f"sampling_params={params!r:.80} must be a SamplingParams, or a list of one for each prompt.")
    if len(listed) != len(prompts):
        raise UserError(
            f"{len(prompts)} prompts came with {len(listed)} sampling_params.",
            hint="Give one SamplingParams for all prompts, or one for each.",
        )
    return [(number, *each) for number, each in enumerate(zip(prompts, listed, adapters, strict=True))]


def _silent(finished: bool) -> None:
    """No progress bar."""


class _ProgressBar:
    """A progress bar on stderr: sequences finished, tokens/s."""

    def __init__(self, total: int):
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("generating"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[speed]}"))
        self.progress = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True))
        self.task = self.progress.add_task("", total=total, speed="")
        self.tokens = 0

    def __enter__(self) -> Callable[[bool], None]:
        self.progress.start()
        return self._advance

    def __exit__(self, *exception: object) -> None:
        self.progress.stop()

    def _advance(self, finished: bool) -> None:
        self.tokens += 1
        elapsed = self.progress.tasks[0].elapsed or 0.0
        speed = f"{self.tokens / elapsed:.0f} tokens/s" if elapsed else ""
        self.progress.update(self.task, advance=int(finished), speed=speed)
