"""TrainSettings: every setting of a training run, with its range and its reason, validated once and then frozen.

A run's train.json is exactly this, and runs it again. presets.py has named recipes, settings_layers.py merges flags,
files and presets. Tests: tests/training/test_train_settings.py.
"""

import dataclasses
import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from nano_llama.core import files
from nano_llama.core.config import LlamaConfig
from nano_llama.core.errors import UserError
from nano_llama.core.presets import MODEL_PRESETS, model_preset
from nano_llama.core.variants import ACTIVATIONS, NORM_PLACEMENTS
from nano_llama.training.optimizers import check_optimizer
from nano_llama.training.picture_settings import PictureSettings, check_pictures
from nano_llama.training.schedule import DECAY
from nano_llama.training.schedule import NAMES as SCHEDULE_NAMES
from nano_llama.training.setting_fields import Section, check_fields, sections

DEFAULT_MODEL = "mini"  # small enough for two cores, large enough to learn from any text
DEFAULT_TOKENIZER = "bpe:4096"
DEFAULT_MINUTES = 5.0

DATA = Section("Data and model", "What to train on, and where the model comes from.")
LENGTH = Section("Length of the run", "Steps make a run reproducible bit for bit; minutes make it fit your time.")
BATCH = Section("Batch", "One step trains on batch-size x context x accumulate tokens.")
UPDATE = Section("Update", "The learning rate rises during warmup, then falls.")
FAULTS = Section("When something goes wrong")
COMPUTE = Section("Computing")
REPORTS = Section("Logging and checkpoints")
SHAPE = Section("Shape of a new model", "In Hugging Face's names; the defaults are those of --model.")


@dataclass(frozen=True, kw_only=True)
class TrainSettings(PictureSettings):
    """Every setting of a training run. Raises UserError if a value is impossible, or two contradict each other.

    >>> TrainSettings(data="stdlib", max_steps=100).replace(lr=0.002).lr
    0.002
    """

    command: ClassVar[str] = "train"  # of the command line, which runs these settings
    from_examples: ClassVar[bool] = False  # whether the data are questions and answers (data/sft), or text

    data: str = DATA.setting("", "a file or folder of text, stdlib, shakespeare, classic-books; or shapes-vqa")
    tokenizer: str | None = DATA.setting(
        None, f"char, bpe:N or a path (default: {DEFAULT_TOKENIZER}, or that of init-from)"
    )
    model: str | None = DATA.setting(
        None, f"shape: {', '.join(MODEL_PRESETS)} (default: {DEFAULT_MODEL}, or that of init-from)"
    )
    init_from: str | None = DATA.setting(
        None, "start from these weights: a folder, .gguf or hub name (default: random weights)"
    )

    max_minutes: float | None = LENGTH.setting(
        None, f"wall time of the whole process (default: {DEFAULT_MINUTES:g}, unless max-steps is given)", above=0
    )
    max_steps: int | None = LENGTH.setting(None, "number of updates; the run is then reproducible bit for bit", least=1)
    epochs: float | None = LENGTH.setting(
        None, "number of passes over the data; max-steps follows from it", above=0
    )  # fmt: skip
    stop_loss: float | None = LENGTH.setting(
        None, "stop early once the validation loss (nats per token) is this low", above=0
    )

    batch_size: int = BATCH.setting(16, "B, sequences per forward pass", least=1)
    context: int = BATCH.setting(256, "T, tokens per sequence: how far back the model can look", least=1)
    accumulate: int = BATCH.setting(
        1, "batches whose gradients are added up into one step: a large batch in little memory", least=1
    )
    document_mask: bool = BATCH.setting(
        False, "tokens attend only within their own document, and positions restart at 0 in each"
    )

    optimizer: str = UPDATE.setting(
        "adamw", "adamw, muon (of matrices), lion, adafactor, schedulefree, adam, sgd, momentum, nesterov, "
        "or my_file.py:Mine",
    )  # fmt: skip
    lr: float = UPDATE.setting(2e-3, "peak learning rate; small models take a high one", above=0)
    schedule: str = UPDATE.setting(
        "cosine", "how lr falls after warmup: along a cosine, a line, only at the end (wsd), or not at all (constant)",
        choices=SCHEDULE_NAMES,
    )  # fmt: skip
    warmup: float = UPDATE.setting(
        0.05, "fraction of the run in which lr rises from 0: early gradients mislead", least=0, most=1
    )
    decay: float | None = UPDATE.setting(
        None, f"wsd only: final fraction of the run in which lr falls (default: {DECAY:g})", above=0, most=1
    )
    final_lr: float = UPDATE.setting(0.1, "lr at the end, as a fraction of the peak", least=0, most=1)
    weight_decay: float = UPDATE.setting(0.1, "decoupled weight decay of the matrices; norms are exempt", least=0)
    clip: float = UPDATE.setting(1.0, "clip the global gradient norm to this; 0: off", least=0)
    beta1: float = UPDATE.setting(
        0.9, "decay of the first-moment average (adamw, lion, schedulefree)", least=0, most=0.9999
    )
    beta2: float = UPDATE.setting(
        0.99, "decay of the second-moment average; short runs need less than 0.999. lion: of its momentum",
        least=0, most=0.99999,
    )  # fmt: skip
    ema: float = UPDATE.setting(
        0.0, "decay of the weight EMA; the average is evaluated and saved; 0: off", least=0, most=0.99999
    )
    z_loss: float = UPDATE.setting(
        0.0, "weight of log(sum exp(logits))^2 in the loss; keeps logits from drifting (PaLM: 1e-4); 0: off", least=0
    )
    dropout: float = UPDATE.setting(
        0.0, "fraction of each sublayer's output set to 0 in training; for text that is read many times",
        least=0, most=0.9,
    )  # fmt: skip

    on_nan: str = FAULTS.setting(
        "stop", "a NaN or infinite loss or gradient: stop, or skip the batch", choices=("stop", "skip")
    )
    on_spike: str = FAULTS.setting(
        "report", "a loss far above the previous ones: report, skip the batch, or stop; the batch is saved",
        choices=("report", "skip", "stop"),
    )  # fmt: skip

    engine: str = COMPUTE.setting("torch", "torch: Volume 2; numpy: Volume 1, by hand", choices=("torch", "numpy"))
    device: str = COMPUTE.setting("auto", "cpu, cuda, cuda:1 or mps; auto: the fastest available")
    precision: str = COMPUTE.setting(
        "auto", "number format of matrix products: fp32, bf16, fp16; auto: the device's fastest. All else is fp32",
        choices=("auto", "fp32", "bf16", "fp16"),
    )  # fmt: skip
    compile: str = COMPUTE.setting(
        "auto", "torch.compile: on or off; auto: on if the run is long enough to gain from it",
        choices=("auto", "on", "off"),
    )  # fmt: skip
    attention: str = COMPUTE.setting(
        "auto", "sdpa (PyTorch's), or triton: our own, on a GPU; auto: sdpa", choices=("auto", "sdpa", "triton")
    )
    kernels: str = COMPUTE.setting(
        "torch", "of norms, RoPE, SwiGLU and loss: torch, or triton: our own, on a GPU", choices=("torch", "triton")
    )
    execution: str = COMPUTE.setting(
        "eager", "eager: kernel by kernel; graph: a step is recorded, then launched whole (for a GPU; not measured)",
        choices=("eager", "graph"),
    )  # fmt: skip
    deterministic: str = COMPUTE.setting(
        "auto", "reproduce a run bit for bit: on, off; auto: on a CPU, where it costs nothing, but not on a GPU",
        choices=("auto", "on", "off"),
    )  # fmt: skip
    activation_checkpointing: str = COMPUTE.setting(
        "none", "recompute activations to save memory: none, selective (cheap ones) or full (whole layers)",
        choices=("none", "selective", "full"),
    )  # fmt: skip
    mesh: str | None = COMPUTE.setting(
        None, "many processes, started by torchrun: axes dp, fsdp, tp, pp, cp with their sizes, as dp=2,tp=2"
    )
    mesh_timeout: float = COMPUTE.setting(
        600.0,
        "seconds that processes wait for each other in one operation before the missing one is reported",
        above=0,
    )
    data_workers: int = COMPUTE.setting(
        0, "processes that prefetch batches; 0: none. The batches are the same", least=0, most=64
    )
    num_threads: int = COMPUTE.setting(
        0, "CPU threads; 0: one per core, torch by the clock: those that are free. The same bits need as many threads",
        least=0,
    )  # fmt: skip
    seed: int = COMPUTE.setting(0, "seed of the initial weights and the order of the data", least=0, most=2**63 - 1)

    log_every: int = REPORTS.setting(10, "steps per line of metrics.jsonl", least=1)
    evaluations: int = REPORTS.setting(
        10, "number of validation losses, spread over the run; the model with the lowest is kept; 0: none",
        least=0,
    )  # fmt: skip
    samples: int = REPORTS.setting(
        2, "texts generated at each evaluation, from openings in the validation text; or pictures to ask about", least=0
    )
    sample_tokens: int = REPORTS.setting(64, "maximum tokens per sample", least=1)
    sample_temperature: float = REPORTS.setting(0.8, "temperature of the samples; 0: greedy", least=0)
    sample_prompt: str | None = REPORTS.setting(None, "prompt for the samples (default: from the validation text)")
    tensorboard: bool = REPORTS.setting(False, "log to TensorBoard too (extra: tensorboard)")
    checkpoint_minutes: float = REPORTS.setting(
        5.0, "minutes between checkpoints; one is also saved at each evaluation", least=0
    )
    keep_checkpoints: int = REPORTS.setting(
        2, "newest checkpoints to keep, besides the one with the lowest validation loss", least=1
    )

    num_hidden_layers: int | None = SHAPE.setting(None, "L, number of layers", least=1)
    hidden_size: int | None = SHAPE.setting(None, "D, width of the residual stream", least=2)
    num_attention_heads: int | None = SHAPE.setting(None, "H, number of query heads", least=1)
    num_key_value_heads: int | None = SHAPE.setting(None, "G, number of key/value heads, a divisor of H", least=1)
    intermediate_size: int | None = SHAPE.setting(None, "F, width of the MLP", least=1)
    tie_word_embeddings: bool | None = SHAPE.setting(None, "use the embedding as the output head")
    rope_theta: float | None = SHAPE.setting(None, "base of RoPE's frequencies", above=0)
    hidden_act: str | None = SHAPE.setting(
        None, "the gate's activation: silu (LLaMA), gelu_pytorch_tanh, relu, or relu2, its square", choices=ACTIVATIONS
    )
    sliding_window: int | None = SHAPE.setting(
        None, "number of positions each one attends to: itself and those just before it (LLaMA: all)", least=1
    )
    norm_placement: str | None = SHAPE.setting(
        None, "pre: x + f(norm(x)), LLaMA's; post: norm(x + f(x)); reordered: x + norm(f(x)), OLMo 2's",
        choices=NORM_PLACEMENTS,
    )  # fmt: skip

    def __post_init__(self) -> None:
        check_fields(self)
        check_optimizer(self.optimizer)
        check_pictures(self)
        lengths = {name: getattr(self, name) for name in LENGTHS if getattr(self, name) is not None}
        if len(lengths) > 1:
            (one, first), (other, second), *_ = lengths.items()
            raise UserError(
                f"{one} = {first:g} and {other} = {second:g} are both set.",
                hint="Give one of them: a run ends by steps, by the clock, or after so many epochs.",
            )
        if self.decay is not None and self.schedule != "wsd":
            raise UserError(
                f"decay = {self.decay:g} needs schedule = 'wsd', not {self.schedule!r}.",
                hint="The other schedules fall from the end of warmup.",
            )
        if self.schedule == "wsd" and self.warmup + (DECAY if self.decay is None else self.decay) > 1:
            raise UserError(f"warmup = {self.warmup:g} and decay = {self.decay} add up to more than the whole run.")
        if self.optimizer == "schedulefree":
            check_schedule_free(self)
        if not lengths:
            object.__setattr__(self, "max_minutes", DEFAULT_MINUTES)
        if self.init_from is not None:
            for name in OWNED_BY_CHECKPOINT:
                if getattr(self, name) is not None:
                    raise UserError(
                        f"{name} = {getattr(self, name)!r} cannot be combined with init_from = {self.init_from!r}.",
                        hint=f"The model keeps its shape and its tokenizer: leave {name} out.",
                    )

    # -- from and to text -----------------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """As train.json holds it: every setting, in the order above."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any], source: str = "settings") -> Self:
        """From a mapping, of which `source` names the file. Raises UserError for a key that is not a setting."""
        return cls(**known(values, source, cls))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a train.json. Raises UserError or FormatError, naming the file."""
        return cls(**read_settings(path, cls))

    @property
    def changed(self) -> dict[str, Any]:
        """The settings that differ from their defaults."""
        fields = fields_of(type(self))
        return {name: value for name, value in self.to_json().items() if value != fields[name].default}

    def replace(self, **changes: Any) -> Self:
        """A copy with some settings changed, validated again; a new max_steps replaces max_minutes, and vice versa."""
        return type(self)(**merge([self.to_json(), known(changes, "settings", type(self))]))

    # -- what follows from the settings ---------------------------------------------------------------------------

    @property
    def base_quantization(self) -> str | None:
        """In how many bits frozen weights are held, "int8" or "int4"; None: in floats."""
        return None

    @property
    def template_variables(self) -> dict[str, Any]:
        """Of the model's chat template, beside the messages."""
        return {}

    @property
    def tokens_per_step(self) -> int:
        """At most: rows of examples may have padding."""
        return self.batch_size * self.context * self.accumulate

    def llama_config(self, vocab_size: int, bos: int | None = None, eos: int | None = None) -> LlamaConfig:
        """The shape of a new model (`init_from` is None). Raises ConfigError if the numbers do not fit together."""
        changes = {name: getattr(self, name) for name in SHAPE_NAMES if getattr(self, name) is not None}
        if "num_attention_heads" in changes and "num_key_value_heads" not in changes:
            changes["num_key_value_heads"] = None  # the named shape's key/value heads need not divide these
        return model_preset(
            self.model or DEFAULT_MODEL, **changes, vocab_size=vocab_size, max_position_embeddings=self.context,
            bos_token_id=bos, eos_token_id=eos,
        )  # fmt: skip


def check_schedule_free(settings: TrainSettings) -> None:
    """Its average replaces a schedule and any other average."""
    for name, fits, hint in (
        ("schedule", settings.schedule == "constant", "Its average replaces the schedule: use --schedule constant."),
        ("ema", settings.ema == 0.0, "It averages the weights already: leave ema out."),
        ("beta1", settings.beta1 > 0.0, "It takes the gradient between the average and the newest weights: use 0.9."),
    ):
        if not fits:
            raise UserError(
                f"{name} = {getattr(settings, name)!r} cannot be combined with optimizer = 'schedulefree'.", hint=hint
            )


SHAPE_NAMES = tuple(sections(TrainSettings)[SHAPE])
OWNED_BY_CHECKPOINT = ("tokenizer", "model", *SHAPE_NAMES)

# A setting's name in version 0.1 -> its name now, and how its value becomes the one of now. Kept for one more version.
RENAMED: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "attend_across": ("document_mask", lambda value: not value if isinstance(value, bool) else value),
    "recompute": ("activation_checkpointing", lambda value: value),
}

# Settings that exclude each other: one that is given later replaces the others.
LENGTHS = ("max_steps", "max_minutes", "epochs")
_REPLACES = {
    **{name: tuple(other for other in LENGTHS if other != name) for name in LENGTHS},
    "init_from": OWNED_BY_CHECKPOINT,
    **{name: ("init_from",) for name in OWNED_BY_CHECKPOINT},
}


def fields_of(cls: type[TrainSettings]) -> dict[str, dataclasses.Field]:
    """name -> field of every setting."""
    return {field.name: field for field in dataclasses.fields(cls)}


def known(values: Mapping[str, Any], source: str, cls: type[TrainSettings] = TrainSettings) -> dict[str, Any]:
    """The settings by their names of now. Raises UserError for an unknown one, with the nearest that exists."""
    result: dict[str, Any] = {}
    fields = fields_of(cls)
    for old, value in values.items():
        name, convert = RENAMED.get(old, (old, lambda value: value))
        if name not in fields:
            near = difflib.get_close_matches(str(name), fields, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"The settings are: {', '.join(fields)}."
            raise UserError(f"{source}: unknown setting {name!r}.", hint=hint)
        if name in result:
            raise UserError(f"{source}: {old} is now {name}, and both are given.", hint=f"Leave {old} out.")
        result[name] = convert(value)
    return result


def merge(layers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Settings of several layers in one: a later layer wins, and removes what contradicts it.

    merge([{"max_steps": 100, "lr": 1e-3}, {"max_minutes": 2.0}]) == {"lr": 1e-3, "max_minutes": 2.0}
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        for name, value in layer.items():
            if value is not None:
                for other in _REPLACES.get(name, ()):
                    merged.pop(other, None)
        merged |= layer
    return merged


def read_settings(path: str | Path, cls: type[TrainSettings] = TrainSettings) -> dict[str, Any]:
    """The settings in a train.json, or in any JSON object that holds some of them: name -> value."""
    values = files.read_json(path, what="file of training settings")
    if not isinstance(values, dict):
        raise UserError(f"{path}: a JSON object of settings was expected, got {type(values).__name__}.")
    return known(values, str(path), cls)
