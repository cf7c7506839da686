"""LlamaConfig: the shape of a model, under Hugging Face's names, validated once and then frozen.

Not here: reading and writing config.json (formats/hf_config.py), named sizes (presets.py).
Tests: tests/core/test_config.py.

Every field means exactly what it means in transformers' `config.json` of a `LlamaForCausalLM`; sliding_window in that
of a `MistralForCausalLM`. norm_placement is this project's own (variants.py).
"""

import dataclasses
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nano_llama.core.errors import ConfigError
from nano_llama.core.units import plural
from nano_llama.core.variants import ACTIVATIONS, NORM_PLACEMENTS, variants

ROPE_KINDS = ("default", "linear", "dynamic", "yarn", "llama3")


@dataclass(frozen=True, kw_only=True)
class RopeScaling:
    """How RoPE's frequencies are stretched beyond the context the model was pretrained on. Used by rope.py.

    rope_type: "linear", "dynamic", "yarn" or "llama3"; factor: how many times longer the context becomes.
    """

    rope_type: str
    factor: float
    original_max_position_embeddings: int | None = None  # yarn, llama3: the context before stretching
    low_freq_factor: float | None = None  # llama3
    high_freq_factor: float | None = None  # llama3
    attention_factor: float | None = None  # yarn: multiplies cos and sin; None: 0.1 ln(factor) + 1
    beta_fast: float | None = None  # yarn: turns over the original context above which nothing is stretched (32)
    beta_slow: float | None = None  # yarn: turns below which everything is stretched (1)
    mscale: float | None = None  # yarn, DeepSeek's form of the attention factor
    mscale_all_dim: float | None = None
    truncate: bool | None = None  # yarn: round the ramp's limits to whole dimensions (True)

    def __post_init__(self) -> None:
        if self.rope_type not in ROPE_KINDS[1:]:
            raise ConfigError(
                f"rope_scaling: rope_type {self.rope_type!r:.80} is not supported.",
                hint=f"Known kinds: {', '.join(ROPE_KINDS)}.",
            )
        for name in _ROPE_NEEDS[self.rope_type]:
            if getattr(self, name) is None:
                raise ConfigError(f"rope_scaling of type {self.rope_type!r} needs {name!r}, which is missing.")
        allowed = {"rope_type", *_ROPE_NEEDS[self.rope_type], *_ROPE_MAY[self.rope_type]}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is None or field.name == "rope_type":
                continue
            if field.name not in allowed:
                raise ConfigError(f"rope_scaling of type {self.rope_type!r} has no {field.name!r} (got {value!r}).")
            if field.name == "truncate":
                check(isinstance(value, bool), "rope_scaling.truncate", value, "true or false")
            elif field.name == "original_max_position_embeddings":
                check(_is_int(value) and value > 0, f"rope_scaling.{field.name}", value, "a positive integer")
            else:
                check(is_number(value) and value > 0, f"rope_scaling.{field.name}", value, "a positive number")
        check(self.factor >= 1, "rope_scaling.factor", self.factor, "a number of at least 1")
        if self.low_freq_factor is not None and self.high_freq_factor is not None:
            check(
                self.high_freq_factor > self.low_freq_factor,
                "rope_scaling.high_freq_factor",
                self.high_freq_factor,
                f"greater than low_freq_factor ({self.low_freq_factor})",
            )

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> "RopeScaling | None":
        """From a dictionary of these fields, of which None counts as left out; rope_type "default" gives None."""
        given = {key: value for key, value in raw.items() if value is not None}
        kind = given.pop("rope_type", None) or "default"
        if kind == "default":
            return None
        unknown = sorted(given.keys() - {field.name for field in dataclasses.fields(cls)})
        if unknown:
            raise ConfigError(f"rope_scaling of type {kind!r:.80} has unknown keys: {', '.join(unknown)}.")
        if "factor" not in given and isinstance(kind, str) and kind in _ROPE_NEEDS:
            raise ConfigError(f"rope_scaling of type {kind!r} needs 'factor', which is missing.")
        return cls(rope_type=kind, **{"factor": 1.0, **given})

    def to_dict(self) -> dict[str, Any]:
        """The fields that are set."""
        return {key: value for key, value in dataclasses.asdict(self).items() if value is not None}


_ROPE_NEEDS = {
    "linear": ("factor",),
    "dynamic": ("factor",),
    "yarn": ("factor", "original_max_position_embeddings"),
    "llama3": ("factor", "original_max_position_embeddings", "low_freq_factor", "high_freq_factor"),
}
_ROPE_MAY: dict[str, tuple[str, ...]] = {
    "linear": (),
    "dynamic": ("original_max_position_embeddings",),
    "yarn": ("attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate"),
    "llama3": (),
}


def rope_fields(rope_type: str) -> tuple[str, ...]:
    """The fields that RopeScaling takes for a kind; none for one that is not computed."""
    return (*_ROPE_NEEDS.get(rope_type, ()), *_ROPE_MAY.get(rope_type, ()))


@dataclass(frozen=True, kw_only=True, repr=False)
class LlamaConfig:
    """The shape of a LLaMA. Every field carries the name that transformers gives it.

    Raises ConfigError when a value is impossible; the message names the field and the value.

    >>> LlamaConfig(vocab_size=256, hidden_size=64, intermediate_size=172, num_hidden_layers=2,
    ...             num_attention_heads=4, max_position_embeddings=128).head_dim
    16
    """

    vocab_size: int  # V
    hidden_size: int  # D, the width of the residual stream
    intermediate_size: int  # F, the width of the MLP
    num_hidden_layers: int  # L
    num_attention_heads: int  # H
    num_key_value_heads: int = None  # type: ignore[assignment]  # G; None: one per query head (MHA)
    head_dim: int = None  # type: ignore[assignment]  # K; None: D / H
    max_position_embeddings: int  # the context, in tokens
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10000.0  # RoPE's base
    rope_scaling: RopeScaling | None = None
    tie_word_embeddings: bool = False  # the head is the embedding, transposed
    initializer_range: float = 0.02  # standard deviation of fresh weights
    hidden_act: str = "silu"  # of the MLP's gate
    sliding_window: int | None = None  # positions that one attends to, itself among them; None: all before it
    norm_placement: str = "pre"  # "pre", "post" or "reordered": where norms stand around a sublayer
    bos_token_id: int | None = None
    eos_token_id: int | tuple[int, ...] | None = None
    pad_token_id: int | None = None

    def __post_init__(self) -> None:
        heads, fill = self.num_attention_heads, object.__setattr__  # a frozen dataclass is filled in once, here
        for name in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "max_position_embeddings"):
            check_positive_int(name, getattr(self, name))
        check_positive_int("num_attention_heads", heads)
        if self.num_key_value_heads is None:
            fill(self, "num_key_value_heads", heads)
        check_positive_int("num_key_value_heads", self.num_key_value_heads)
        if heads % self.num_key_value_heads:
            raise ConfigError(
                f"num_attention_heads = {heads} is not a multiple of num_key_value_heads = {self.num_key_value_heads}.",
                hint="Each key/value head serves the same number of query heads.",
            )
        if self.head_dim is None:
            if self.hidden_size % heads:
                raise ConfigError(
                    f"hidden_size = {self.hidden_size} is not a multiple of num_attention_heads = {heads}.",
                    hint="Choose other numbers, or set head_dim explicitly.",
                )
            fill(self, "head_dim", self.hidden_size // heads)
        check_positive_int("head_dim", self.head_dim)
        check(self.head_dim % 2 == 0, "head_dim", self.head_dim, "even: RoPE rotates pairs")
        for name in ("rms_norm_eps", "rope_theta", "initializer_range"):
            value = getattr(self, name)
            check(is_number(value) and value > 0, name, value, "a positive number")
        check(isinstance(self.tie_word_embeddings, bool), "tie_word_embeddings", self.tie_word_embeddings, "a boolean")
        for name, known in (("hidden_act", ACTIVATIONS), ("norm_placement", NORM_PLACEMENTS)):
            check(getattr(self, name) in known, name, getattr(self, name), f"one of {', '.join(known)}")
        if self.sliding_window is not None:
            check_positive_int("sliding_window", self.sliding_window)
        if isinstance(self.rope_scaling, Mapping):
            fill(self, "rope_scaling", RopeScaling.from_dict(self.rope_scaling))
        check(
            self.rope_scaling is None or isinstance(self.rope_scaling, RopeScaling),
            "rope_scaling", self.rope_scaling, "None or a RopeScaling",
        )  # fmt: skip
        if self.rope_kind == "dynamic":
            check(self.head_dim > 2, "head_dim", self.head_dim, "above 2 with dynamic RoPE, whose formula has K - 2")
        if isinstance(self.eos_token_id, list):
            fill(self, "eos_token_id", tuple(self.eos_token_id))
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            value = getattr(self, name)
            ids = value if isinstance(value, tuple) else (value,)
            for token in ids:
                check(token is None or _is_int(token), name, value, "a token id")

    # -- what follows from the fields ---------------------------------------------------------------------------------

    @property
    def group_size(self) -> int:
        """Query heads that share one key/value head, H / G."""
        return self.num_attention_heads // self.num_key_value_heads

    @property
    def rope_kind(self) -> str:
        return self.rope_scaling.rope_type if self.rope_scaling else "default"

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """All ids that end a text."""
        if self.eos_token_id is None:
            return ()
        return self.eos_token_id if isinstance(self.eos_token_id, tuple) else (self.eos_token_id,)

    @property
    def num_parameters(self) -> int:
        """The number of trainable parameters; a tied head counts once."""
        D, F, K = self.hidden_size, self.intermediate_size, self.head_dim
        attention = 2 * D * K * (self.num_attention_heads + self.num_key_value_heads)
        layer = attention + 3 * D * F + 2 * D
        embeddings = self.vocab_size * D * (1 if self.tie_word_embeddings else 2)
        return embeddings + self.num_hidden_layers * layer + D

    def __repr__(self) -> str:
        """What makes an equal one: the fields that differ from their defaults."""
        fields = ((field.name, getattr(self, field.name), field.default) for field in dataclasses.fields(self))
        return f"LlamaConfig({', '.join(f'{name}={value!r}' for name, value, default in fields if value != default)})"

    @property
    def shape_text(self) -> str:
        """The shape in a line, for a model's repr."""
        heads = f"{plural(self.num_attention_heads, 'head')} ({self.num_key_value_heads} for keys and values)"
        more = "".join(f", {name} {value}" for name, value in variants(self).items())
        layers = plural(self.num_hidden_layers, "layer")
        return (
            f"{self.num_parameters:,} parameters: {layers} of width {self.hidden_size}, {heads},"
            f" vocabulary {self.vocab_size:,}, context {self.max_position_embeddings:,}{more}"
        )

    def replace(self, **changes: Any) -> "LlamaConfig":
        """A copy with some fields changed, validated again."""
        return dataclasses.replace(self, **changes)

    # -- from and to files: the one lazy door to formats, above -------------------------------------------------------

    @classmethod
    def from_pretrained(cls, path: str | Path) -> "LlamaConfig":
        """Read the configuration of a Hugging Face folder, a config.json, a .gguf, or a hub name."""
        from nano_llama.formats import read_config

        return read_config(path)

    @classmethod
    def from_hf_dict(cls, raw: Mapping[str, Any], source: str = "config.json") -> "LlamaConfig":
        """Build from transformers' dictionary. `source` names the file in messages. Raises ConfigError."""
        from nano_llama.formats.hf_config import config_from_hf

        return config_from_hf(raw, source)

    def to_hf_dict(self) -> dict[str, Any]:
        """The dictionary that every version of transformers reads as a `LlamaForCausalLM`; a variant's own (see
        config_to_hf)."""
        from nano_llama.formats.hf_config import config_to_hf

        return config_to_hf(self)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    # not math.isfinite, which fails on an int beyond every float
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def check(condition: bool, name: str, value: Any, wanted: str) -> None:
    if not condition:
        raise ConfigError(f"{name} = {value!r:.80} must be {wanted}.")


def check_positive_int(name: str, value: Any) -> None:
    check(_is_int(value) and 0 < value < 2**31, name, value, "a positive integer")
