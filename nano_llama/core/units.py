"""Sizes, counts, times and long texts in words, as every message, table and progress bar writes them.

Tests: tests/core/test_units.py.
"""


def size_text(count: float) -> str:
    """1536 -> "1.5 KiB"."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:,.0f} {unit}" if unit == "bytes" else f"{count:,.1f} {unit}"
        count /= 1024
    return f"{count:,.1f} TiB"


def plural(count: int, thing: str) -> str:
    """1, "step" -> "1 step"; 1200, "step" -> "1,200 steps"."""
    return f"{count:,} {thing}" if count == 1 else f"{count:,} {thing}s"


def count_text(count: float) -> str:
    """134_515_008 -> "134.5M"."""
    for limit, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= limit:
            return f"{count / limit:.1f}{unit}"
    return f"{count:.0f}"


def time_text(seconds: float) -> str:
    """A time that was measured: 75.2 -> "1 min 15 s"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"


def rough_time_text(seconds: float) -> str:
    """A time that was estimated, in one unit: 4000 -> "67 minutes"."""
    for limit, unit in ((90.0, "seconds"), (90.0, "minutes"), (48.0, "hours")):
        if seconds < limit:
            return f"{seconds:.0f} {unit}"
        seconds /= 60.0 if unit != "hours" else 24.0
    return f"{seconds:,.0f} days"


def clock_text(seconds: float) -> str:
    """A running clock: 75.2 -> "1:15", 4000 -> "1:06:40"."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def shortened_text(text: str, most: int, space: str = " ") -> str:
    """A text of more than `most` characters without its middle: "begin [... 1,200 characters ...] end"."""
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]}{space}[... {len(text) - 2 * half:,} characters ...]{space}{text[-half:]}"
