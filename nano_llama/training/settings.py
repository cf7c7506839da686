"""TrainSettings: every setting of a training run, with its range and its reason, validated once and then frozen.

`train.json` in a run's folder is exactly this, and runs it again. Not here: named recipes and how flags, files and
presets are merged (presets.py), and what the settings do (loop.py and the engines).
Tests: tests/training/test_train_settings.py.
"""

import dataclasses
import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_type_hints

from nano_llama.core import files
from nano_llama.core.config import LlamaConfig
from nano_llama.core.errors import UserError
from nano_llama.core.presets import model_preset
from nano_llama.training.schedule import DECAY
from nano_llama.training.schedule import NAMES as SCHEDULE_NAMES

DEFAULT_MODEL = "mini"  # small enough for two cores, large enough to learn from any text
DEFAULT_TOKENIZER = "bpe:4096"
DEFAULT_MINUTES = 5.0


def setting(
    default: Any, doc: str, *, least: float | None = None, above: float | None = None, most: float | None = None,
    choices: tuple[str, ...] | None = None,
) -> Any:  # fmt: skip
    """A field with its one-line explanation and its range (`least` and `most` included, `above` excluded)."""
    return field(
        default=default, metadata={"doc": doc, "least": least, "above": above, "most": most, "choices": choices}
    )


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """Every setting of a training run. Raises UserError when a value is impossible or two cannot be honoured together.

    >>> TrainSettings(data="stdlib", max_steps=100).replace(lr=0.002).lr
    0.002
    """

    # -- what to learn from
    data: str = setting("", "text to learn: a file, a folder, stdlib, shakespeare or classic-books")
    tokenizer: str | None = setting(None, f"char, bpe:N or a path; none: {DEFAULT_TOKENIZER}, or init_from's own")

    # -- the model: a named shape, any number of which may be changed
    model: str | None = setting(None, f"name of a shape in core/presets.py; none: {DEFAULT_MODEL}, or init_from's own")
    hidden_size: int | None = setting(None, "D, width of the residual stream; none: the named shape's", least=2)
    num_hidden_layers: int | None = setting(None, "L, layers; none: the named shape's", least=1)
    num_attention_heads: int | None = setting(None, "H, query heads; none: the named shape's", least=1)
    num_key_value_heads: int | None = setting(None, "G, key/value heads, a divisor of H; none: the shape's", least=1)
    intermediate_size: int | None = setting(None, "F, width of the MLP; none: the named shape's", least=1)
    tie_word_embeddings: bool | None = setting(None, "the head is the embedding; none: the named shape's")
    rope_theta: float | None = setting(None, "RoPE's base; none: the named shape's", above=0)
    init_from: str | None = setting(None, "weights to go on from (folder, .gguf or hub name); none: fresh ones")

    # -- how much at a time
    batch_size: int = setting(16, "B, sequences that go through the model at once", least=1)
    context: int = setting(256, "T, tokens a sequence: what the model can look back on", least=1)
    attend_across: bool = setting(
        True, "tokens see earlier documents of their window too; false: their own only, with positions from 0"
    )
    accumulate: int = setting(
        1, "batches whose gradients are summed into one step: a large batch in little memory", least=1
    )

    # -- the update
    optimizer: str = setting(
        "adamw", "adamw, lion, adafactor, schedulefree; or muon for the layers' matrices, with adamw for the rest",
        choices=("adamw", "muon", "lion", "adafactor", "schedulefree"),
    )  # fmt: skip
    lr: float = setting(2e-3, "peak learning rate; small models take a large one", above=0)
    schedule: str = setting(
        "cosine", "after the warmup lr falls by a cosine, a line, or (wsd) only at the end, or stays constant",
        choices=SCHEDULE_NAMES,
    )  # fmt: skip
    warmup: float = setting(0.05, "part of the run in which lr rises from 0: early gradients mislead", least=0, most=1)
    final_lr: float = setting(0.1, "part of the peak at which lr ends; a short run still learns there", least=0, most=1)
    decay: float | None = setting(
        None, f"wsd: part of the run, its last, in which lr falls; none: {DECAY:g}", above=0, most=1
    )
    beta1: float = setting(0.9, "AdamW, Lion, schedule-free: memory of the gradient", least=0, most=0.9999)
    beta2: float = setting(
        0.99,
        "AdamW, schedule-free: memory of its square; short runs want less than 0.999. Lion: its memory",
        least=0,
        most=0.99999,
    )
    weight_decay: float = setting(0.1, "pull of the matrices towards 0, a step and lr; norms are left free", least=0)
    clip: float = setting(1.0, "largest norm of the whole gradient, longer ones are shortened; 0: off", least=0)
    ema: float = setting(
        0.0, "part of a running average of the weights that stays at a step; it is evaluated and saved; 0: off",
        least=0, most=0.99999,
    )  # fmt: skip
    z_loss: float = setting(
        0.0, "times log(sum exp(logits))^2, added to the loss: keeps logits from drifting; PaLM's 1e-4; 0: off", least=0
    )
    dropout: float = setting(
        0.0, "part of each sublayer's output set to 0 while training: for texts read many times", least=0, most=0.9
    )

    # -- how long
    max_steps: int | None = setting(None, "updates; the run is then the same again, bit for bit", least=1)
    max_minutes: float | None = setting(
        None, f"wall time of the whole process; {DEFAULT_MINUTES:g} where there is no max_steps", above=0
    )

    stop_loss: float | None = setting(
        None, "the run ends early once the validation loss (nats a token) is so low; none: never", above=0
    )

    # -- when something goes wrong
    on_nan: str = setting(
        "stop", "a loss or gradient that is no number: stop, or skip the batch", choices=("stop", "skip")
    )
    on_spike: str = setting(
        "report", "a loss far above the last ones: report, skip the batch, or stop; bad_batches/ keeps the batch",
        choices=("report", "skip", "stop"),
    )  # fmt: skip

    # -- what is reported and kept
    log_every: int = setting(10, "steps a line of metrics.jsonl", least=1)
    evaluations: int = setting(
        10, "validation losses, spread evenly over the run, the last at its end; 0: none", least=0
    )
    samples: int = setting(2, "texts written at each evaluation, after openings from the validation text", least=0)
    sample_tokens: int = setting(64, "tokens of a sample, at most", least=1)
    sample_prompt: str | None = setting(None, "what the samples go on from instead; none: the validation text")
    tensorboard: bool = setting(False, "write the figures for TensorBoard too (extra: tensorboard)")
    checkpoint_minutes: float = setting(
        5.0, "at most so much work is lost to a kill; one is also kept at each evaluation", least=0
    )
    keep_checkpoints: int = setting(
        2, "newest checkpoints that stay on disk, and the one with the lowest validation loss", least=1
    )

    # -- with what
    engine: str = setting("torch", "torch: Volume 2; numpy: Volume 1, by hand", choices=("torch", "numpy"))
    device: str = setting("auto", "cpu, cuda, cuda:1, mps; auto: the fastest there is")
    precision: str = setting(
        "auto", "of matrix products: fp32, bf16, fp16; auto: what the device is fastest in. All else is fp32",
        choices=("auto", "fp32", "bf16", "fp16"),
    )  # fmt: skip
    compile: str = setting(
        "auto", "torch.compile: on, off; auto: where a run is long enough to win its seconds back",
        choices=("auto", "on", "off"),
    )  # fmt: skip
    recompute: str = setting(
        "none", "activations computed twice to save memory: none, selective (cheap ones), full (all of a layer)",
        choices=("none", "selective", "full"),
    )  # fmt: skip
    data_workers: int = setting(
        0, "processes that make batches ahead; 0: made as they are wanted. The batches are the same", least=0, most=64
    )
    num_threads: int = setting(0, "CPU threads; 0: the engine's own choice. Equal bits need equal threads", least=0)
    seed: int = setting(0, "of the fresh weights and the order of the data", least=0, most=2**63 - 1)

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):
            object.__setattr__(self, item.name, _checked(item, getattr(self, item.name)))
        if self.max_steps is not None and self.max_minutes is not None:
            raise UserError(
                f"max_steps = {self.max_steps} and max_minutes = {self.max_minutes:g} are both set.",
                hint="A run ends by steps or by the clock: give one.",
            )
        if self.decay is not None and self.schedule != "wsd":
            raise UserError(
                f"decay = {self.decay:g} belongs to schedule = 'wsd', not to {self.schedule!r}.",
                hint="Other schedules fall from the warmup's end on.",
            )
        if self.schedule == "wsd" and self.warmup + (DECAY if self.decay is None else self.decay) > 1:
            raise UserError(f"warmup = {self.warmup:g} and decay = {self.decay} together are more than the whole run.")
        if self.optimizer == "schedulefree":
            self._check_schedule_free()
        if self.max_steps is None and self.max_minutes is None:
            object.__setattr__(self, "max_minutes", DEFAULT_MINUTES)
        if self.init_from is not None:
            for name in OWNED_BY_CHECKPOINT:
                if getattr(self, name) is not None:
                    raise UserError(
                        f"{name} = {getattr(self, name)!r} cannot be honoured with init_from = {self.init_from!r}.",
                        hint=f"A model that goes on keeps its shape and its tokenizer: leave {name} out.",
                    )

    def _check_schedule_free(self) -> None:
        """Its average takes the place of a schedule and of another average."""
        for name, fits, hint in (
            ("schedule", self.schedule == "constant", "its average stands for the fall: use --schedule constant"),
            ("ema", self.ema == 0.0, "it averages the weights already: leave ema out"),
            ("beta1", self.beta1 > 0.0, "it takes the gradient between average and newest weights: use 0.9"),
        ):
            if not fits:
                raise UserError(
                    f"{name} = {getattr(self, name)!r} cannot be honoured with optimizer = 'schedulefree'.",
                    hint=f"{hint[0].upper()}{hint[1:]}.",
                )

    # -- from and to text -----------------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """As train.json holds it: every setting, in the order above."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any], source: str = "settings") -> "TrainSettings":
        """From a mapping. Raises UserError for a key that is not a setting; `source` names the file in messages."""
        check_names(values, source)
        return cls(**values)

    @classmethod
    def load(cls, path: str | Path) -> "TrainSettings":
        """Read a train.json. Raises UserError or FormatError, naming the file."""
        return cls.from_json(read_settings(path), str(path))

    def replace(self, **changes: Any) -> "TrainSettings":
        """A copy with some settings changed, validated anew; of max_steps and max_minutes the new one holds."""
        check_names(changes, "settings")
        return TrainSettings(**merge([self.to_json(), changes]))

    # -- what follows from the settings ---------------------------------------------------------------------------

    @property
    def tokens_per_step(self) -> int:
        return self.batch_size * self.context * self.accumulate

    def llama_config(self, vocab_size: int, bos: int | None = None, eos: int | None = None) -> LlamaConfig:
        """The shape of a fresh model (`init_from` is None). Raises ConfigError when the numbers do not fit together."""
        changes = {name: getattr(self, name) for name in SHAPE if getattr(self, name) is not None}
        if "num_attention_heads" in changes and "num_key_value_heads" not in changes:
            changes["num_key_value_heads"] = None  # the named shape's count of key/value heads need not divide ours
        return model_preset(
            self.model or DEFAULT_MODEL, **changes, vocab_size=vocab_size, max_position_embeddings=self.context,
            bos_token_id=bos, eos_token_id=eos,
        )  # fmt: skip


SHAPE = (
    "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "intermediate_size",
    "tie_word_embeddings", "rope_theta",
)  # fmt: skip
OWNED_BY_CHECKPOINT = ("tokenizer", "model", *SHAPE)

# Settings that exclude each other: the one that is given later takes the place of the others.
_REPLACES = {
    "max_steps": ("max_minutes",),
    "max_minutes": ("max_steps",),
    "init_from": OWNED_BY_CHECKPOINT,
    **{name: ("init_from",) for name in OWNED_BY_CHECKPOINT},
}
_FIELDS = {item.name: item for item in dataclasses.fields(TrainSettings)}
_HINTS = get_type_hints(TrainSettings)


def merge(layers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Settings of several layers in one: a later layer wins, and drives out what cannot stand beside it.

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


def read_settings(path: str | Path) -> dict[str, Any]:
    """The settings in a train.json, or in any JSON object that holds some of them: name -> value."""
    values = files.read_json(path, what="file of training settings")
    if not isinstance(values, dict):
        raise UserError(f"{path}: a JSON object of settings was expected, got {type(values).__name__}.")
    check_names(values, str(path))
    return values


def parse_setting(text: str) -> tuple[str, Any]:
    """ "lr=3e-4" -> ("lr", 0.0003), by the type of the setting. Raises UserError for an unknown name or a bad value."""
    name, equals, value = (part.strip() for part in text.partition("="))
    if not equals:
        raise UserError(f"--set {text!r} has no '='.", hint="Write  --set key=value, for example  --set lr=0.001")
    check_names([name], "--set")
    kind, optional = _kind(name)
    if optional and value.lower() in ("none", "null"):
        return name, None
    try:
        if kind is bool:
            return name, {"true": True, "false": False}[value.lower()]
        return name, kind(value)
    except (ValueError, KeyError):
        raise UserError(f"--set {text!r}: {value!r} is not {_WORDS[kind]}.", hint=f"{name}: {describe(name)}") from None


def describe(name: str) -> str:
    """The one-line explanation of a setting."""
    return _FIELDS[name].metadata["doc"]


def check_names(names: Mapping[str, Any] | Sequence[str], source: str) -> None:
    """Raises UserError for the first name that is no setting, with the nearest one that is."""
    for name in names:
        if name not in _FIELDS:
            near = difflib.get_close_matches(str(name), _FIELDS, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"The settings are: {', '.join(_FIELDS)}."
            raise UserError(f"{source}: there is no setting {name!r}.", hint=hint)


_WORDS: dict[type, str] = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def _kind(name: str) -> tuple[type, bool]:
    """The type of a setting, and whether it may be None."""
    hint = _HINTS[name]
    if isinstance(hint, UnionType):
        return next(part for part in get_args(hint) if part is not NoneType), True
    return hint, False


def _checked(item: dataclasses.Field, value: Any) -> Any:
    """The value in its own type. Raises UserError when type or range is wrong."""
    kind, optional = _kind(item.name)
    if value is None and optional:
        return None
    limits = item.metadata
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if abs(value) < 1e300 else math.inf
    wanted = _WORDS[kind]
    good = isinstance(value, kind) and not (kind is int and isinstance(value, bool))
    if good and kind is float:
        good = math.isfinite(value)
    for word, limit, holds in (
        ("at least", limits["least"], lambda a, b: a >= b),
        ("above", limits["above"], lambda a, b: a > b),
        ("at most", limits["most"], lambda a, b: a <= b),
    ):
        if limit is not None:
            wanted += f"{' and' if ' a' in wanted[2:] else ''} {word} {limit:g}"
            good = good and holds(value, limit)
    if limits["choices"]:
        wanted, good = " or ".join(limits["choices"]), value in limits["choices"]
    if not good:
        raise UserError(f"{item.name} = {value!r} must be {wanted}.", hint=f"{item.name}: {limits['doc']}")
    return value
