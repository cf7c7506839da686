"""Two settings, each trained on several seeds: is the difference of their losses larger than the noise of the seeds?

A single run of each cannot say: another seed draws other weights and another order of the data, and often that alone
moves the loss by more. Both settings are trained on the same seeds, so run i of A and run i of B are a pair, and the
question is whether the mean of the differences d_i is far from 0, in units of what the mean of n such d_i varies by:

    t = mean(d) / (s / sqrt(n)),    s^2 = sum (d_i - mean(d))^2 / (n - 1)

Student's t ("Student" 1908, The Probable Error of a Mean) has n - 1 degrees of freedom: with 3 seeds |t| must exceed
4.3, with 10 only 2.3. `nano-llama compare` runs it, plots.py draws it. Tests: tests/training/test_comparison.py.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

# |t| is below this with probability 0.95 if there is no difference, for 1, 2, 3 ... degrees of freedom.
T_95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
        2.120, 2.110, 2.101, 2.093)  # fmt: skip
MOST_SEEDS = len(T_95) + 1


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds, and half the width of the interval that holds the true one with probability 0.95."""

    mean: float
    margin: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Estimate":
        """From 2 to MOST_SEEDS values."""
        return cls(statistics.mean(values), T_95[len(values) - 2] * statistics.stdev(values) / math.sqrt(len(values)))

    def __str__(self) -> str:
        return f"{self.mean:.4f} ± {self.margin:.4f}"


@dataclass(frozen=True)
class Comparison:
    """The final validation losses of two settings, by seed: run i of `first` and of `second` had the same seed."""

    names: tuple[str, str]
    first: Sequence[float]
    second: Sequence[float]
    unit: str  # of the losses

    @property
    def estimates(self) -> tuple[Estimate, Estimate]:
        """Of each alone: its error bar."""
        return Estimate.of(self.first), Estimate.of(self.second)

    @property
    def difference(self) -> Estimate:
        """second - first, seed by seed: what both have of a seed in common cancels."""
        return Estimate.of([b - a for a, b in zip(self.first, self.second, strict=True)])

    @property
    def larger_than_noise(self) -> bool:
        """Whether 0 is outside the interval of the difference."""
        return abs(self.difference.mean) > self.difference.margin

    @property
    def sentence(self) -> str:
        """What was found, in words."""
        gap, n = self.difference, len(self.first)
        better, worse = self.names if gap.mean > 0 else self.names[::-1]
        said = f"{better} is {abs(gap.mean):.4f} ± {gap.margin:.4f} {self.unit} below {worse} (95%, {n} seeds)"
        if self.larger_than_noise:
            return f"{said}: larger than the noise between seeds."
        return f"{said}: not larger than the noise between seeds. It may be none; more seeds would narrow it."

    def to_json(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "estimates": [asdict(estimate) for estimate in self.estimates],
            "difference": asdict(self.difference),
            "larger_than_noise": self.larger_than_noise,
            "sentence": self.sentence,
        }
