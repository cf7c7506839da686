"""`nano-llama verify`: a checkpoint against transformers, or Volume 1's gradients against autograd; exit 0 or 1.

Not here: the comparisons (verify/). Tests: tests/cli/test_verify.py.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.table import Table

from nano_llama.cli.common import Output, Positive, Screen, printable, table
from nano_llama.cli.models import ModelPath, locate_model
from nano_llama.core.errors import UserError
from nano_llama.formats.shipped import shipped_model

if TYPE_CHECKING:
    from nano_llama.verify.checkpoint import Row, VerifyReport
    from nano_llama.verify.volumes import VolumesReport

FAILED = 1


def run(
    model: ModelPath,
    *,
    gradients: bool = False,
    volumes: bool | None = None,
    reference: Path | None = None,
    tolerance: Annotated[Positive | None, Parameter(show_default=False)] = None,
    all: bool = False,
    output: Output | None = None,
) -> int:
    """Is this checkpoint read as Hugging Face reads it? Compares tensors, every layer's output and the logits.

    Exit code 0: they agree. 1: they do not, and the likely cause is named where it is known (q/k permutation, RoPE,
    tied head, BOS, norm epsilon). An error is max|a-b| / max|b| per tensor; both sides compute in float32 on the CPU.

    Parameters
    ----------
    gradients
        Compare the gradients of a random batch instead: Volume 1, derived by hand, against PyTorch's autograd, in
        float64. Memory: about 50 bytes a parameter.
    volumes
        Compare the logits of the three volumes, transformers and llama.cpp instead. Default for a model that ships.
    reference
        What transformers reads, if not the same path: say, the folder a .gguf was made from.
    tolerance
        The largest error that passes. Default 1e-4; for gradients 1e-10.
    all
        Show every tensor, not only the worst of each layer.
    """
    screen = Screen(output)
    if gradients and reference is not None:
        raise UserError("--reference has no meaning with --gradients.", hint="Gradients are compared with autograd's.")
    path = locate_model(model, screen)
    asked_for_other = gradients or reference is not None or tolerance is not None or all
    if volumes and asked_for_other:
        raise UserError("--volumes stands alone.", hint="It has a tolerance for each program; leave the others out.")
    if volumes or (volumes is None and not asked_for_other and path == shipped_model(model)):
        return run_volumes(path, screen)
    if gradients:
        from nano_llama.verify.gradients import verify_gradients

        screen.say("Computing the gradients twice: by hand in NumPy, and by autograd ...", style="dim")
        report = verify_gradients(path, tolerance=tolerance)
    else:
        from nano_llama.verify.checkpoint import verify_checkpoint

        screen.say("Loading the model twice: by us, and by transformers ...", style="dim")
        report = verify_checkpoint(path, reference, **({} if tolerance is None else {"tolerance": tolerance}))
    grid = every_row(report.rows) if all else worst_of_places(report.rows)
    remarks = [*(f"cause: {cause}" for cause in report.causes), *(f"note: {note}" for note in report.notes)]
    other = report.reference if gradients else f"transformers' reading of {report.reference}"
    screen.result(report.to_dict(), grid, "", *remarks, verdict(report, other))
    return 0 if report.ok else FAILED


def run_volumes(path: Path, screen: Screen) -> int:
    """The table of every program that can run this model."""
    from nano_llama.verify.volumes import verify_volumes

    screen.say("Reading the model with every program that can ...", style="dim")
    report = verify_volumes(path)
    screen.result(report.to_dict(), volumes_table(report), "", volumes_verdict(report))
    return 0 if report.ok else FAILED


def volumes_table(report: "VolumesReport") -> Table:
    """A line for each program."""
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
    """One sentence. `other`: whom we were compared with."""
    failed = [row for row in report.rows if not row.ok]
    if report.ok:
        worst = max(report.rows, key=lambda row: row.relative_error)
        return (
            f"OK: {len(report.rows)} comparisons agree with {other} to {report.tolerance:g} "
            f"(worst {worst.relative_error:.1e}, {worst.name})."
        )
    if failed:
        return (
            f"DIFFERENT from {other}: {len(failed)} of {len(report.rows)} comparisons are beyond {report.tolerance:g}."
        )
    return f"DIFFERENT from {other}: the numbers agree to {report.tolerance:g}, but see the cause above."


def every_row(rows: "list[Row]") -> Table:
    """A line for each comparison, with the index of the largest difference."""
    return table(
        ("what", "name", "shape", "error", "at", ""),
        [
            (r.kind, r.name, "x".join(map(str, r.shape)), f"{r.relative_error:.1e}", printable(r.worst), mark(r.ok))
            for r in rows
        ],
    )


COLUMNS = {"tensor": "weights", "activation": "output", "logits": "output", "gradient": "gradient", "loss": "gradient"}


def worst_of_places(rows: "list[Row]") -> Table:
    """A line for each place (embedding, layer i, norm, head): its worst errors, and the names of what differs."""
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
    """What differs, within its place."""
    if row.kind in ("activation", "logits"):
        return "output"
    return re.sub(r"^model\.(layers\.\d+\.)?", "", row.name).removesuffix(".weight")


def mark(ok: bool) -> str:
    """The verdict on a line."""
    return "ok" if ok else "DIFFERS"
