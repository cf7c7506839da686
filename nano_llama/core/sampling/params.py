"""SamplingParams: what a request asks of the sampler, in the words and with the meaning of vLLM's class.

Not here: the sampling itself (sampler.py), and checks that need a model, such as whether a token id exists in its
vocabulary (the engine does those). Tests: tests/core/test_sampling_params.py.
"""

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from nano_llama.core.errors import UserError
from nano_llama.core.sampling.philox import MAX_SEED
from nano_llama.core.sampling.structured_outputs import checked_structured_outputs


class _Unset(int):
    """A default that can be told from the same number given."""


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """Every field is checked when the object is made; a wrong one raises UserError with the value and its range.
    The defaults are vLLM's (so max_tokens is 16: ask for what you need); but an unset max_tokens lets an answer of a
    chat go on to its end.

    How the distribution is shaped (formulas: sampler.py, in this order)
      logit_bias           {token id: number added to its logit}, numbers in [-100, 100]            default: none
      repetition_penalty   > 0; above 1 discourages tokens of the prompt and of the output           default: 1, off
      frequency_penalty    [-2, 2]; subtracted once for each time the output has the token           default: 0, off
      presence_penalty     [-2, 2]; subtracted once if the output has the token at all               default: 0, off
      temperature          >= 0; 0 is greedy: the most likely token, of ties the lowest id           default: 1
      min_p                [0, 1]; drops tokens below this fraction of the top one's probability     default: 0, off
      top_k                keeps the k most likely; 0 or -1 keeps all                                default: 0, off
      top_p                (0, 1]; nucleus: the smallest set of tokens of this total probability     default: 1, off
    When it ends
      max_tokens           >= 1 new tokens; None: until the context is full            default: 16, in a chat None
      min_tokens           until there are so many, no id that ends the text may come, and a stop
                           string that is complete by then does not end it                           default: 0
      stop                 a string or several: the text ends before the first that appears          default: none
      stop_token_ids       ids that end the text; the id stays in token_ids, its text is left out    default: none
      ignore_eos           continue after the model's own end of text                                default: False
    What it may be
      structured_outputs   one of {"json": a schema, or True}, {"regex": text}, {"choice": [texts]}, {"grammar":
                           text, in Lark's syntax or llama.cpp's}: only texts of this form are generated.
                           The text ends where nothing may follow, whatever min_tokens and ignore_eos say;
                           max_tokens, stop and stop_token_ids may cut it short. Needs the extra `structured`.
                                                                                                     default: none
    Other
      seed                 0 ... 2^64 - 1: the same seed, the same tokens; None: a random one        default: None
      n                    samples of each prompt; sample i uses seed + i                            default: 1
      logprobs             for each token its log-probability and those of this many of the most likely,
                           under the model's own distribution (before everything above); None: none  default: None
      prompt_logprobs      the same for each token of the prompt, given those before it              default: None
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] | None = None
    max_tokens: int | None = _Unset(16)
    min_tokens: int = 0
    stop: str | Sequence[str] | None = None
    stop_token_ids: Sequence[int] | None = None
    ignore_eos: bool = False
    structured_outputs: Mapping[str, Any] | None = None
    seed: int | None = None
    n: int = 1
    logprobs: int | None = None
    prompt_logprobs: int | None = None

    def __post_init__(self) -> None:
        _check_number("temperature", self.temperature, low=0.0)
        _check_number("top_p", self.top_p, low=0.0, high=1.0, open_below=True)
        _check_number("min_p", self.min_p, low=0.0, high=1.0)
        _check_number("repetition_penalty", self.repetition_penalty, low=0.0, open_below=True)
        _check_number("presence_penalty", self.presence_penalty, low=-2.0, high=2.0)
        _check_number("frequency_penalty", self.frequency_penalty, low=-2.0, high=2.0)
        # NumPy's integers wrap around where Python's grow, and so would draw other tokens for the same seed.
        for name, low, high in _INTEGERS:
            value = getattr(self, name)
            if isinstance(value, _Unset):
                continue
            if value is not None or name in ("top_k", "n", "min_tokens"):
                object.__setattr__(self, name, _checked_integer(name, value, low=low, high=high))
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise UserError(f"min_tokens={self.min_tokens} must be at most max_tokens={self.max_tokens}.")
        if not isinstance(self.ignore_eos, bool):
            raise UserError(f"ignore_eos={self.ignore_eos!r} must be True or False.")
        # Normalized copies: the rest of the code sees one form of each, and shares no list with the caller.
        object.__setattr__(self, "stop", _strings("stop", self.stop))
        object.__setattr__(self, "stop_token_ids", _token_ids("stop_token_ids", self.stop_token_ids))
        object.__setattr__(self, "logit_bias", _bias(self.logit_bias))
        object.__setattr__(self, "structured_outputs", checked_structured_outputs(self.structured_outputs))

    @property
    def is_greedy(self) -> bool:
        return self.temperature == 0

    @property
    def for_chat(self) -> "SamplingParams":
        """The same for an answer in a conversation: to its end, where max_tokens is unset."""
        return self.replace(max_tokens=None) if isinstance(self.max_tokens, _Unset) else self

    @property
    def stop_strings(self) -> tuple[str, ...]:
        return self.stop or ()  # type: ignore[return-value]  # __post_init__ made it a tuple

    @property
    def changes_logits(self) -> bool:
        """Whether penalties or biases move the logits before the temperature does."""
        return bool(
            self.logit_bias
            or self.repetition_penalty != 1.0
            or self.presence_penalty != 0.0
            or self.frequency_penalty != 0.0
        )

    def replace(self, **changes: Any) -> "SamplingParams":
        """A copy with some fields changed, checked again."""
        return replace(self, **changes)


def _check_number(name: str, value: Any, *, low: float, high: float = math.inf, open_below: bool = False) -> None:
    if isinstance(value, bool) or (not isinstance(value, (int, float)) and not hasattr(value, "__float__")):
        raise UserError(f"{name}={value!r} must be a number.")
    if not math.isfinite(value) or not low <= value <= high or (open_below and value == low):
        upper = f" and at most {high:g}" if math.isfinite(high) else ""
        raise UserError(f"{name}={value!r} must be {'above' if open_below else 'at least'} {low:g}{upper}.")


# name, smallest, largest
_INTEGERS: tuple[tuple[str, int, int | None], ...] = (
    ("top_k", -1, None),
    ("n", 1, None),
    ("max_tokens", 1, None),
    ("min_tokens", 0, None),
    ("seed", 0, MAX_SEED),
    ("logprobs", 0, None),
    ("prompt_logprobs", 0, None),
)


def _checked_integer(name: str, value: Any, *, low: int, high: int | None = None) -> int:
    """The value as Python's own integer."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise UserError(f"{name}={value!r} must be a whole number.")
    value = operator.index(value)
    if value < low or (high is not None and value > high):
        upper = f" and at most {high}" if high is not None else ""
        raise UserError(f"{name}={value!r} must be at least {low}{upper}.")
    return value


def _strings(name: str, value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    strings = (value,) if isinstance(value, str) or not hasattr(value, "__iter__") else tuple(value)
    if not all(isinstance(string, str) and string for string in strings):
        raise UserError(f"{name}={value!r} must be a string or a list of strings, none of them empty.")
    return strings


def _token_ids(name: str, value: Any) -> tuple[int, ...] | None:
    if value is None:
        return None
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        raise UserError(f"{name}={value!r} must be a list of token ids.")
    return tuple(_checked_integer(name, token, low=0) for token in value)


def _bias(value: Any) -> dict[int, float] | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise UserError(f"logit_bias={value!r} must be a dict of token id to number.")
    for token, amount in value.items():
        _checked_integer("a token id in logit_bias", token, low=0)
        _check_number(f"logit_bias[{token}]", amount, low=-100.0, high=100.0)
    return {int(token): float(amount) for token, amount in value.items()}
