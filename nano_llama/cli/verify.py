"""`nano-llama verify`: a checkpoint against transformers, Volume 1's gradients against autograd, or all programs that
can run a model against each other; exit code 0 or 1. The comparisons are in verify/, this file prints them.

Tests: tests/cli/test_verify.py.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from nano_llama.cli.common import Output, Positive, Screen, printable, table
from nano_llama.cli.models import ModelPath, locate_model
from nano_llama.cli.wide_table import WideTable
from nano_llama.core.errors import UserError, import_extra
from nano_llama.formats.shipped import shipped_model

if TYPE_CHECKING:
    from nano_llama.verify.checkpoint import Row, VerifyReport
    from nano_llama.verify.volumes import VolumesReport

FAILED = 1  # the exit code where something differs


# An option, those it cannot be combined with, and the reason.
EXCLUSIVE = (
    ("--gradients", ("--reference",), "Gradients are compared with autograd's."),
    ("--volumes", ("--gradients", "--reference", "--tolerance", "--all"), "Each program has its own tolerance."),
)

EXAMPLE = "nano_gpt"  # of dispatch.py


def run(
    model: ModelPath,
    *,
    gradients: bool = False,
    volumes: bool | None = None,
    reference: Path | None = None,
    tolerance: Annotated[Positive | None, Parameter(show_default=False)] = None,
    all_rows: Annotated[bool, Parameter(name="--all")] = False,
    output: Output | None = None,
) -> int:
    """Is this checkpoint read as Hugging Face reads it? Compares tensors, every layer's output and the logits.

    Exit code 0: they agree. 1: they do not, and the likely cause is named where it is known (q/k permutation, RoPE,
    tied head, BOS, norm epsilon). An error is max|a-b| / max|b| per tensor; both sides compute in float32 on the CPU.

    Parameters
    ----------
    gradients
        Compare the gradients of a random batch instead: Volume 1, derived by hand, against PyTorch's autograd, in
        float64. Memory: about 50 bytes per parameter.
    volumes
        Compare the logits of the three volumes, transformers and llama.cpp instead. Default for a model that ships.
    reference
        What transformers reads, if not the same path: for example the folder that a .gguf was made from.
    tolerance
        The largest error that passes. Default 1e-4; for gradients 1e-10.
    all_rows
        Show every tensor, not only the worst of each layer.
    """
    screen = Screen(output)
    given = {
        "--gradients": gradients,
        "--volumes": bool(volumes),
        "--reference": reference is not None,
        "--tolerance": tolerance is not None,
        "--all": all_rows,
    }
    check_exclusive([name for name, value in given.items() if value])
    path = locate_model(model, screen)
    if volumes is None:
        volumes = not any(given.values()) and path == shipped_model(model)
    if volumes:
        return run_volumes(path, screen)
    if gradients:
        report = run_gradients(path, tolerance, screen)
        other = report.reference
    else:
        report = run_checkpoint(path, reference, tolerance, screen)
        other = f"transformers' reading of {model if reference is None else reference}"
    grid = every_row(report.rows) if all_rows else worst_of_places(report.rows)
    remarks = [*(f"cause: {cause}" for cause in report.causes), *(f"note: {note}" for note in report.notes)]
    screen.result(report.to_dict(), grid, "", *remarks, verdict(report, other))
    return 0 if report.ok else FAILED


def check_exclusive(given: Sequence[str]) -> None:
    """Raise UserError where two of the given options exclude each other."""
    for option, excluded, reason in EXCLUSIVE:
        for other in excluded:
            if option in given and other in given:
                raise UserError(f"{option} cannot be combined with {other}.", hint=f"{reason} Leave one of them out.")


def run_checkpoint(path: Path, reference: Path | None, tolerance: float | None, screen: Screen) -> "VerifyReport":
    """Our reading of a checkpoint beside transformers'."""
    from nano_llama.verify.checkpoint import verify_checkpoint

    for package in ("torch", "transformers"):  # before anything is said
        import_extra(package, "verify", "verify")
    if reference is not None:
        locate_model(str(reference), screen)
    screen.say("Loading the model twice, by nano-llama and by transformers ...", style="dim")
    screen.say("Error: the largest difference between them in a tensor, divided by its largest number.", style="dim")
    return verify_checkpoint(path, reference, **({} if tolerance is None else {"tolerance": tolerance}))


def run_gradients(path: Path, tolerance: float | None, screen: Screen) -> "VerifyReport":
    """Volume 1's gradients beside autograd's."""
    from nano_llama.verify.gradients import verify_gradients

    screen.say("Computing the gradients twice: by hand in NumPy, and by autograd ...", style="dim")
    return verify_gradients(path, tolerance=tolerance)


def run_volumes(path: Path, screen: Screen) -> int:
    """Every program that can run this model, in a table."""
    from nano_llama.verify.volumes import verify_volumes

    screen.say("Running the model in every program that can ...", style="dim")
    report = verify_volumes(path)
    screen.result(report.to_dict(), volumes_table(report), "", volumes_verdict(report))
    return 0 if report.ok else FAILED


def volumes_table(report: "VolumesReport") -> WideTable:
    """A row per program."""
    lines = []
    for row in report.rows:
        if row.skipped is not None:
            lines.append((row.program, row.precision, "", "", "", f"skipped: {row.skipped}"))
        else:
            choice = f"{row.same_choice} of {report.positions}"
            lines.append(
                (row.program, row.precision, f"{row.error:.1e}", f"{row.divergence:.1e}", choice, mark(row.ok))
            )
    return table(("program", "precision", "error", "KL, nats", "same choice", ""), lines)


def volumes_verdict(report: "VolumesReport") -> str:
    """One sentence."""
    took_part = [row for row in report.rows if row.skipped is None]
    if report.ok:
        from nano_llama.verify.volumes import REFERENCE

        return f"OK: {len(took_part)} programs agree with {REFERENCE}, each to its precision."
    return "DIFFERENT: " + ", ".join(row.program for row in took_part if not row.ok) + "."


def verdict(report: "VerifyReport", other: str) -> str:
    """One sentence. `other`: what the checkpoint was compared with."""
    failed = [row for row in report.rows if not row.ok]
    if report.ok:
        worst = max(report.rows, key=lambda row: row.relative_error)
        return (
            f"OK: {len(report.rows)} comparisons agree with {other} to {report.tolerance:g} "
            f"(worst {worst.relative_error:.1e}, {worst.name})."
        )
    if failed:
        return f"DIFFERENT from {other}: {len(failed)} of {len(report.rows)} comparisons exceed {report.tolerance:g}."
    return f"DIFFERENT from {other}: the numbers agree to {report.tolerance:g}, but see the cause above."


def every_row(rows: "list[Row]") -> WideTable:
    """A row per comparison, with the index of the largest difference."""
    return table(
        ("what", "name", "shape", "error", "at", ""),
        [
            (r.kind, r.name, "x".join(map(str, r.shape)), f"{r.relative_error:.1e}", printable(r.worst), mark(r.ok))
            for r in rows
        ],
    )


COLUMNS = {"tensor": "weights", "activation": "output", "logits": "output", "gradient": "gradient", "loss": "gradient"}


def worst_of_places(rows: "list[Row]") -> WideTable:
    """A row per place (embedding, layer i, norm, head): its worst errors, and the names of what differs."""
    columns = list(dict.fromkeys(COLUMNS.get(row.kind, row.kind) for row in rows))
    places: dict[str, list[Row]] = {}
    for row in rows:
        places.setdefault(place(row.name), []).append(row)
    lines = []
    for where, members in places.items():
        cells = []
        for column in columns:
            errors = [row.relative_error for row in members if COLUMNS.get(row.kind, row.kind) == column]
            cells.append(f"{max(errors):.1e}" if errors else "")
        failed = [short(row) for row in members if not row.ok]
        lines.append((where, *cells, f"{mark(False)}: {', '.join(failed)}" if failed else mark(True)))
    return table(("where", *(f"{column} error" for column in columns), ""), lines)


def place(name: str) -> str:
    """The part of the model a name belongs to: "layer 3", or itself."""
    found = re.match(r"model\.layers\.(\d+)", name)
    return f"layer {found[1]}" if found else name.removeprefix("model.").removesuffix(".weight")


def short(row: "Row") -> str:
    """A row's name within its place."""
    if row.kind in ("activation", "logits"):
        return "output"
    return re.sub(r"^model\.(layers\.\d+\.)?", "", row.name).removesuffix(".weight")


def mark(ok: bool) -> str:
    """The last cell of a row."""
    return "ok" if ok else "DIFFERS"
