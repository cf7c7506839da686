"""Is a setting better than another, or is it the seed? Each on several seeds, with the noise between them.

A run with another seed draws other weights and another order of the data, and often that alone moves the loss by more
than a setting does. All settings are trained on the same seeds, so run i of A and run i of B are a pair, and the
question is whether the mean of the differences d_i is far from 0, in units of what the mean of n such d_i varies by:

    t = mean(d) / (s / sqrt(n)),    s^2 = sum (d_i - mean(d))^2 / (n - 1)

Student's t ("Student" 1908, The Probable Error of a Mean) has n - 1 degrees of freedom: with 3 seeds |t| must exceed
4.3, with 10 only 2.3.

Who compares ten settings with the first finds one by luck: at 5% each, in up to 1 - 0.95^10 = 40% of such sweeps. So
each of m differences gets the interval of 1 - 0.05/m (Bonferroni; Dunn 1961, Multiple Comparisons Among Means): all m
hold what is true with probability 0.95, whatever they have in common. Holm's (1979) steps find a little more, but have
no intervals that could be drawn. Differences between the others are not tested: that would be m (m + 1) / 2 of them.

`nano-llama compare` runs it, plots.py draws it. Tests: tests/training/test_comparison.py.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

SURE = 0.95


def student_within(t: float, freedom: int) -> float:
    """The probability that Student's variable of so many degrees of freedom lies between -t and t.

    A finite sum, by integrating (1 + x^2/n)^(-(n+1)/2) by parts in the angle x = sqrt(n) tan(angle)
    (Abramowitz and Stegun, 26.7.3 and 26.7.4).
    """
    angle = math.atan2(t, math.sqrt(freedom))
    cosine = math.cos(angle)
    odd = freedom % 2
    term, total = (cosine if odd else 1.0), 0.0
    for power in range(odd, freedom - 1, 2):
        total += term
        term *= cosine**2 * (power + 1) / (power + 2)
    return 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total


@cache
def student_quantile(sure: float, freedom: int) -> float:
    """The t that |Student's variable| is below with probability `sure`, by halving an interval."""
    low, high = 0.0, 1.0
    while student_within(high, freedom) < sure:
        low, high = high, 2 * high
    for _ in range(60):  # as many bits as a float has, and some more
        middle = (low + high) / 2
        low, high = (middle, high) if student_within(middle, freedom) < sure else (low, middle)
    return high


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds, and half the width of the interval that holds the true one with probability `sure`."""

    mean: float
    margin: float

    @classmethod
    def of(cls, values: Sequence[float], sure: float = SURE) -> "Estimate":
        """From 2 values or more."""
        n = len(values)
        return cls(statistics.mean(values), student_quantile(sure, n - 1) * statistics.stdev(values) / math.sqrt(n))

    @property
    def without_zero(self) -> bool:
        """Whether 0 is outside the interval."""
        return abs(self.mean) > self.margin

    def __str__(self) -> str:
        return f"{self.mean:.4f} ± {self.margin:.4f}"


@dataclass(frozen=True)
class Comparison:
    """The validation losses of two settings or more, by seed: run i of each had the same seed. The first is compared
    with every other."""

    losses: Mapping[str, Sequence[float]]  # name -> of its runs
    unit: str  # of the losses

    @property
    def names(self) -> list[str]:
        return list(self.losses)

    @property
    def sorted_names(self) -> list[str]:
        """The lowest mean first."""
        return sorted(self.losses, key=lambda name: self.estimate(name).mean)

    @property
    def first(self) -> str:
        return self.names[0]

    @property
    def num_seeds(self) -> int:
        return len(self.losses[self.first])

    @property
    def num_tests(self) -> int:
        """m of the module's text."""
        return len(self.losses) - 1

    def estimate(self, name: str) -> Estimate:
        """Of a setting alone: its error bar."""
        return Estimate.of(self.losses[name])

    def difference(self, name: str) -> Estimate:
        """A setting's loss less the first's, seed by seed: what both have of a seed in common cancels."""
        pairs = zip(self.losses[self.first], self.losses[name], strict=True)
        return Estimate.of([loss - of_first for of_first, loss in pairs], 1 - (1 - SURE) / self.num_tests)

    def verdict(self, name: str) -> str:
        """How a setting compares with the first, in a word or two."""
        gap = self.difference(name)
        return ("lower" if gap.mean < 0 else "higher") if gap.without_zero else "not larger than the noise"

    @property
    def sentence(self) -> str:
        """What was found, in words."""
        if self.num_tests > 1:
            return self._sentence_of_many()
        (_, second) = self.names
        gap = self.difference(second)
        better, worse = self.names if gap.mean > 0 else self.names[::-1]
        said = f"{better} is {abs(gap.mean):.4f} ± {gap.margin:.4f} {self.unit} below {worse}"
        said += f" ({SURE:.0%}, {self.num_seeds} seeds)"
        if gap.without_zero:
            return f"{said}: larger than the noise between seeds."
        return f"{said}: not larger than the noise between seeds. It may be none; more seeds would narrow it."

    def _sentence_of_many(self) -> str:
        found = {word: [name for name in self.names[1:] if self.verdict(name) == word] for word in ("lower", "higher")}
        parts = [f"{word}: {', '.join(names)}" for word, names in found.items() if names]
        said = f"Against {self.first}, {'; '.join(parts) if parts else 'none differs by more than the noise'}"
        how = f"{self.num_seeds} seeds; {SURE:.0%} for all {self.num_tests} comparisons together, Bonferroni"
        return f"{said} ({how}). The others are not compared with each other."

    def to_json(self) -> dict[str, Any]:
        settings = []
        for name in self.sorted_names:
            alone, gap = self.estimate(name), None if name == self.first else self.difference(name)
            settings.append(
                {
                    "name": name,
                    "losses": list(self.losses[name]),
                    "mean": alone.mean,
                    "margin": alone.margin,
                    "difference": gap and gap.mean,  # from the first's
                    "difference_margin": gap and gap.margin,
                    "larger_than_noise": gap and gap.without_zero,
                }
            )
        return {
            "first": self.first, "unit": self.unit, "seeds": self.num_seeds, "comparisons": self.num_tests,
            "sure": SURE, "correction": "bonferroni", "settings": settings, "sentence": self.sentence,
        }  # fmt: skip
