"""`nano-llama study`: run a small experiment of studies/; its picture is saved and its finding printed.

Tests: tests/cli/test_study.py.
"""

import time
from pathlib import Path

from nano_llama.cli.common import NotNegative, Output, PictureFormat, Screen, facts, table
from nano_llama.core import files
from nano_llama.core.machine import CpuUse
from nano_llama.core.units import time_text


def run(
    name: str = "",
    /,
    *,
    out: Path = Path("studies"),
    seed: NotNegative = 0,
    quick: bool = False,
    format: PictureFormat = "png",
    dark: bool = False,
    output: Output | None = None,
) -> int:
    """Run a study, a few minutes each: it draws a picture and says what it found. Without a name: list the studies.

    Parameters
    ----------
    name
        The study to run.
    out
        The folder for the picture, NAME.png or NAME.svg.
    seed
        Random seed.
    quick
        Seconds instead of minutes, with rougher figures.
    format
        Format of the picture. svg: for print, sharp at any size.
    dark
        Light lines on black, for a dark slide.
    """
    from nano_llama.studies import STUDIES, run_study

    screen = Screen(output)
    if not name:
        listed = table(("study", "what it asks"), [(key, study.help) for key, study in STUDIES.items()])
        screen.result({"studies": {key: study.help for key, study in STUDIES.items()}}, listed)
        screen.say("\nRun one:  nano-llama study NAME", style="dim")
        return 0
    if name in STUDIES:
        files.check_folder(out)
        screen.say(f"{STUDIES[name].help}\nThis takes {'seconds' if quick else 'a few minutes'} ...", style="dim")
    began, use = time.perf_counter(), CpuUse()
    finding = run_study(name, out, seed=seed, quick=quick, format=format, dark=dark)
    seconds = time.perf_counter() - began
    shown = facts({"picture": finding.picture, "took": time_text(seconds)})
    noise = use.sentence("times are longer than they would be alone; all else is the same.")
    screen.result({**finding.to_dict(), "seconds": seconds, "noise": noise}, finding.text, "", shown)
    if noise:
        screen.say(f"\n{noise}", "yellow")
    return 0
