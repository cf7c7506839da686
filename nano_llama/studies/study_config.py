"""What a study may change about the architecture of study_model.py; the defaults are a LLaMA.

Tests: tests/studies/test_study_model.py.
"""

from dataclasses import dataclass

from nano_llama.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """Departures from LLaMA. Raises ConfigError for a value that is not among the choices."""

    norm: str = "rmsnorm"  # "rmsnorm", "layernorm" (Ba et al. 2016) or "none"
    norm_position: str = "pre"  # "pre": x + f(norm(x)), or "post": norm(x + f(x)), as Vaswani et al. 2017 had it
    attention_scale: bool = True  # divide scores by sqrt(K)
    residual: bool = True  # add each sublayer's input to its output

    def __post_init__(self) -> None:
        for name, choices in (("norm", ("rmsnorm", "layernorm", "none")), ("norm_position", ("pre", "post"))):
            if getattr(self, name) not in choices:
                raise ConfigError(f"StudyConfig: {name} = {getattr(self, name)!r} must be one of {', '.join(choices)}.")
