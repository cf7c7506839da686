"""Study: a model spread over processes in five ways: what a rank sends in a step, counted and by formula, and holds.

Two processes are started (parallel_rank.py); each makes a step on every mesh of two, and counts what it sends. Beside
it stands the formula of vol2_torch/parallel/comm_formulas.py, which then goes on to more ranks than a laptop has.
Tests: tests/parallel/test_study.py.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nano_llama.core.config import LlamaConfig
from nano_llama.core.errors import EnvironmentFault, import_extra
from nano_llama.core.figures import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, log_ticks, panels, save
from nano_llama.studies.finding import Finding, points

if TYPE_CHECKING:
    from nano_llama.vol2_torch.parallel.config import ParallelConfig

AXES = ("dp", "fsdp", "tp", "pp", "cp")
COLORS = dict(zip(AXES, (BLUE, ORANGE, GREEN, RED, PURPLE), strict=True))
RANKS = (1, 2, 4, 8, 16)  # of the curves
BATCH = 8  # rows of a step
SECONDS = 300.0  # that the processes may take


def shape(quick: bool) -> tuple[LlamaConfig, int]:
    """The model, and the context T."""
    D, L, V, T = (64, 4, 256, 32) if quick else (256, 8, 4096, 256)
    config = LlamaConfig(
        vocab_size=V, hidden_size=D, intermediate_size=3 * D, num_hidden_layers=L, num_attention_heads=16,
        num_key_value_heads=16, head_dim=D // 16, max_position_embeddings=T, tie_word_embeddings=True,
    )  # fmt: skip
    return config, T


def run(picture: Path, seed: int = 0, quick: bool = False) -> Finding:
    import_extra("torch", "train", "The study of many processes")
    from nano_llama.vol2_torch.parallel.comm_formulas import comm_bytes, rank_parameters
    from nano_llama.vol2_torch.parallel.config import ParallelConfig

    config, T = shape(quick)
    counted = count(config, seed)

    def tokens(axes: "ParallelConfig") -> int:
        """That a rank computes in a step."""
        return BATCH * T // (axes.dp * axes.fsdp * axes.cp)

    def sent(axes: "ParallelConfig") -> float:
        return sum(comm_bytes(config, axes, tokens=tokens(axes)).values())

    of_two = {axis: ParallelConfig(**{axis: 2}) for axis in AXES}
    formula = {axis: comm_bytes(config, of_two[axis], tokens=tokens(of_two[axis]))[axis] for axis in AXES}
    curves = {
        axis: {n: ParallelConfig(**{axis: n}) for n in RANKS if axis != "pp" or n <= config.num_hidden_layers}
        for axis in AXES
    }
    held = {
        axis: {n: sum(rank_parameters(config, axes).values()) for n, axes in meshes.items()}
        for axis, meshes in curves.items()
    }
    traffic = {axis: {n: sent(axes) for n, axes in meshes.items()} for axis, meshes in curves.items()}
    caption = f"LLaMA of {config.shape_text}; {BATCH} x {T} tokens in a step, float32, seed {seed}"
    draw(picture, {axis: one["bytes"] for axis, one in counted.items()}, formula, held, traffic, caption)

    off = {axis: counted[axis]["bytes"] / formula[axis] - 1.0 for axis in AXES}
    rows = "\n".join(
        f"    {f'{axis}=2':8} {counted[axis]['bytes'] / 1e6:10.3f} {formula[axis] / 1e6:10.3f} {off[axis]:+8.1%}"
        f" {counted[axis]['held']:12,}"
        for axis in AXES
    )
    worst = max(AXES, key=lambda axis: abs(off[axis]))
    last = RANKS[-1]
    table = (
        f"A model of {config.num_parameters:,} parameters, {BATCH} rows of {T} tokens in a step, float32, by gloo.\n"
        f"    mesh     MB counted MB formula      off   held by a rank\n{rows}"
    )
    found = points(
        f"What is counted is within {abs(off[worst]):.1%} of the formula.",
        f"By formula, a rank of {last} sends {traffic['dp'][last] / 1e6:,.1f} MB per step with dp and"
        f" {traffic['fsdp'][last] / 1e6:,.1f} with fsdp, whatever the batch; with tp"
        f" {traffic['tp'][last] / 1e6:,.1f}, in proportion to it.",
        f"It holds 1/{last} of the parameters with fsdp, all of them with dp.",
    )
    text = f"{found}\n\n{table}"
    figures: dict[str, Any] = {
        "counted": {axis: one["bytes"] for axis, one in counted.items()}, "formula": formula,
        "held_counted": {axis: one["held"] for axis, one in counted.items()},
        "held": {axis: list(values.values()) for axis, values in held.items()},
        "sent": {axis: list(values.values()) for axis, values in traffic.items()}, "ranks": list(RANKS),
    }  # fmt: skip
    return Finding("parallel", text, picture, figures)


def count(config: LlamaConfig, seed: int) -> dict[str, dict[str, int]]:
    """axis -> {"bytes": sent in a step, "held": parameters}, of the first of two ranks. Raises EnvironmentFault."""
    wanted = json.dumps({"axes": AXES, "model": config.to_hf_dict(), "rows": BATCH, "seed": seed})
    with tempfile.TemporaryDirectory(prefix="nano-llama-") as folder:
        command = [sys.executable, "-m", "nano_llama.studies.parallel_rank", str(Path(folder) / "store")]
        ranks = [
            subprocess.Popen(
                [*command, str(rank), wanted],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(2)
        ]
        try:
            answers = [rank.communicate(timeout=SECONDS) for rank in ranks]
        except subprocess.TimeoutExpired:
            raise EnvironmentFault(
                f"Two processes did not make their steps within {SECONDS:.0f} s.", hint="Is the machine busy?"
            ) from None
        finally:
            for rank in ranks:
                rank.kill()
    if any(rank.returncode for rank in ranks):
        reason = next(err for rank, (_, err) in zip(ranks, answers, strict=True) if rank.returncode).strip()
        raise EnvironmentFault(
            f"Two processes failed: {reason.splitlines()[-1][:200] if reason else 'no reason given'}"
        )
    return json.loads(answers[0][0])


def draw(picture: Path, counted: dict, formula: dict, held: dict, traffic: dict, caption: str) -> None:
    figure, (bars, parameters, curves) = panels(
        [
            "two ranks: MB that one sends in a step",
            "parameters that a rank holds (formula)",
            "MB sent in a step (formula)",
        ]
    )
    places = range(len(AXES))
    bars.bar([p - 0.2 for p in places], [counted[axis] / 1e6 for axis in AXES], 0.4, color=BLUE, label="counted")
    bars.bar([p + 0.2 for p in places], [formula[axis] / 1e6 for axis in AXES], 0.4, color=GREY, label="formula")
    bars.set_xticks(list(places), AXES)
    for axis, width in zip(AXES, (5.0, 4.0, 2.0, 1.5, 1.5), strict=True):  # some lie on others
        style = {"color": COLORS[axis], "label": axis, "linewidth": width}
        parameters.loglog(list(held[axis]), list(held[axis].values()), **style)
        sent = {n: value / 1e6 for n, value in traffic[axis].items() if value}
        curves.loglog(list(sent), list(sent.values()), **style)
    for ax in (parameters, curves):
        ax.set_xlabel("ranks of the axis")
        ax.set_xticks(RANKS, [str(n) for n in RANKS])
        ax.set_xticks([], minor=True)
        log_ticks(ax.yaxis)
    for ax in (bars, parameters, curves):
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=5, columnspacing=1.0, handlelength=1.2)
    bars.grid(visible=False, axis="x")
    bars.set(xlabel="axis", ylabel="MB")
    parameters.set_ylabel("parameters")
    curves.set_ylabel("MB")
    save(figure, picture, caption)
