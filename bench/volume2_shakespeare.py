"""Shakespeare by characters on a CPU, beside nanoGPT in the same wall time, counted from the command's start.

    python bench/volume2_shakespeare.py --data tinyshakespeare.txt --nanogpt DIR     both, one after the other
    python bench/volume2_shakespeare.py --data tinyshakespeare.txt [--minutes 2]     ours alone  (or: shakespeare)

DIR is a checkout of github.com/karpathy/nanoGPT whose data/shakespeare_char/prepare.py has been run on the same text.
It is trained by its README's command for a CPU; ours,  nano-llama train --preset shakespeare-cpu  as a user runs it,
gets the same number of seconds, start, compiling (the cache is empty), evaluations and saving included.

Both losses are of the whole validation split (the last tenth of the text) in consecutive windows of 64 characters, in
float32 nats per character, computed again after the clock stopped: nanoGPT's own estimate, which its curve shows,
samples 240 windows.
Bar: 1.65. Writes bench/results/volume2_shakespeare.json, curves included, and .png, which --draw makes anew from it;
the last line printed is the JSON without its curves.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _machine import fingerprint

from nano_llama.core.errors import UserError
from nano_llama.core.figures import BLUE, GREY, ORANGE, look, panels, save
from nano_llama.core.files import read_json, write_json
from nano_llama.core.machine import usable_cores
from nano_llama.core.units import plural
from nano_llama.training.metrics import read_metrics
from nano_llama.training.plots import thinned
from nano_llama.vol2_torch.evaluate import evaluate_model

RESULT = Path(__file__).parent / "results" / "volume2_shakespeare.json"
BAR, AIM = 1.65, 1.58
WINDOW = 64
MAX_POINTS = 200  # kept of a curve

NANOGPT = [
    "config/train_shakespeare_char.py", "--device=cpu", "--compile=False", "--eval_iters=20", "--log_interval=1",
    "--block_size=64", "--batch_size=12", "--n_layer=4", "--n_head=4", "--n_embd=128", "--max_iters=2000",
    "--lr_decay_iters=2000", "--dropout=0.0",
]  # fmt: skip
EVALUATE_NANOGPT = """
import sys, numpy as np, torch
from model import GPT, GPTConfig
saved = torch.load(sys.argv[1], weights_only=False)
model = GPT(GPTConfig(**saved["model_args"])).eval()
model.load_state_dict(saved["model"])
val = torch.from_numpy(np.fromfile("data/shakespeare_char/val.bin", np.uint16).astype(np.int64))
with torch.no_grad():
    nats = sum(model(part[None, :-1], part[None, 1:])[1].item() * (len(part) - 1)
               for start in range(0, len(val) - 1, 64) for part in [val[start:start + 65]])
print(nats / (len(val) - 1))
"""

Curve = list[tuple[float, float]]  # seconds since the command's start, loss


def train_nanogpt(folder: Path, out: Path, environment: dict[str, str]) -> dict[str, Any]:
    """Its README's command. -> seconds, both losses, and its curves."""
    for name in ("train.py", "data/shakespeare_char/val.bin"):
        if not (folder / name).exists():
            raise UserError(
                f"{folder} has no {name}.", hint="A checkout, after  python data/shakespeare_char/prepare.py"
            )
    began = time.perf_counter()
    curves: dict[str, Curve] = {"train": [], "val": []}
    command = [sys.executable, "-u", "train.py", *NANOGPT, f"--out_dir={out}"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None, "stdout is a pipe"
        for line in process.stdout:
            if found := re.match(r"step \d+: .* val loss ([\d.]+)", line):
                curves["val"].append((time.perf_counter() - began, float(found[1])))
            elif found := re.match(r"iter \d+: loss ([\d.]+)", line):
                curves["train"].append((time.perf_counter() - began, float(found[1])))
    if process.returncode:
        raise UserError(f"nanoGPT's command ended with exit code {process.returncode}.", hint="Its errors are above.")
    seconds = time.perf_counter() - began
    evaluation = subprocess.run(
        [sys.executable, "-c", EVALUATE_NANOGPT, str(out / "ckpt.pt")],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return {
        "seconds": round(seconds, 1),
        "val_loss": round(float(evaluation.stdout.split()[-1]), 4),
        "its_own_estimate": curves["val"][-1][1],
        "curves": curves,
    }


def train_ours(data: str, minutes: float, folder: Path, environment: dict[str, str]) -> dict[str, Any]:
    """The preset, as a user runs it, with an empty compile cache. -> seconds, losses, and its curves."""
    run = folder / "run"
    command = [sys.executable, "-c", "import sys; from nano_llama.cli import main; sys.exit(main())", "train"]
    command += ["--preset", "shakespeare-cpu", "--data", data, "--out", str(run), "--max-minutes", f"{minutes:.4f}"]
    cold = {**environment, "TORCHINDUCTOR_CACHE_DIR": str(folder / "compiled")}
    began = time.perf_counter()
    subprocess.run([*command, "--json"], check=True, stdout=subprocess.DEVNULL, env=cold)
    seconds = time.perf_counter() - began
    rows, settings = read_metrics(run / "metrics.jsonl"), read_json(run / "train.json")
    evaluated = [row for row in rows if "val_loss" in row]
    evaluation = evaluate_model(run, data, context=WINDOW, device="cpu")
    return {
        "seconds": round(seconds, 1),
        "val_loss": round(evaluation.loss, 4),
        "val_loss_within_the_run": round(evaluated[-1]["val_loss"], 4),
        "val_bits_per_byte": round(evaluated[-1]["val_bits_per_byte"], 4),
        "steps": rows[-1]["step"],
        "tokens_per_second": round(rows[-1]["tokens"] / rows[-1]["elapsed_s"]),
        "settings": {key: settings[key] for key in ("optimizer", "lr", "batch_size", "context", "engine", "seed")},
        "curves": {
            "train": [(row["elapsed_s"], row["train_loss"]) for row in rows],
            "val": [(row["elapsed_s"], row["val_loss"]) for row in evaluated],
        },
    }


def kept(run: dict[str, Any]) -> dict[str, Any]:
    """As it stands in the result file: few enough points for a picture, in two columns."""
    curves = {split: list(zip(*thinned(curve, MAX_POINTS), strict=True)) for split, curve in run["curves"].items()}
    columns = {
        split: {"seconds": [round(x, 1) for x in seconds], "loss": [round(y, 4) for y in losses]}
        for split, (seconds, losses) in curves.items()
    }
    return {**run, "curves": columns}


def draw() -> None:
    """The result file as a picture."""
    result = read_json(RESULT)
    if "curves" not in result:
        raise UserError(f"{RESULT} holds no curves.", hint="Train once without --draw: the bench keeps them now.")
    runs = [(result, BLUE, "nano-llama"), (result.get("nanogpt"), ORANGE, "nanoGPT")]
    with look():
        figure, (ax,) = panels(["Shakespeare by characters, from the command's start"], width=7.4, height=4.6)
        for run, color, name in runs:
            if run is not None:
                train, val = (run["curves"][split] for split in ("train", "val"))
                ax.plot(train["seconds"], train["loss"], color=color, lw=0.8, alpha=0.5)
                label = f"{name}: {run['val_loss']:.4f} in {run['seconds']:.0f} s"
                ax.plot(val["seconds"], val["loss"], "o-", color=color, label=label)
        ax.axhline(BAR, color=GREY, linestyle="--", lw=1, label=f"bar: {BAR}")
        ax.set(xlabel="seconds", ylabel="loss, nats per character (faint: training)", ylim=(1.4, 2.8))
        ax.legend(title="whole validation split")
        ours = "{optimizer} at {lr:g}, B = {batch_size}, seed {seed}".format(**result["settings"])
        caption = (
            f"LLaMA and GPT of 4 layers, width 128, 4 heads; T = {WINDOW}; {plural(result['threads'], 'thread')}\n"
            f"nano-llama: {ours}; nanoGPT: adamw at 0.001, B = 12, seed 1337"
        )
        save(figure, RESULT.with_suffix(".png"), caption)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="shakespeare")
    parser.add_argument("--minutes", type=float, default=2.0, help="of ours, where nanoGPT does not set the time")
    parser.add_argument("--nanogpt", type=Path, metavar="DIR")
    parser.add_argument("--threads", type=int, help="of both; 1 where others use the machine (default: all cores)")
    parser.add_argument("--draw", action="store_true", help="only the picture, from the kept curves")
    args = parser.parse_args()
    if args.draw:
        return draw()
    environment = {**os.environ, **({"OMP_NUM_THREADS": str(args.threads)} if args.threads else {})}
    theirs, minutes = None, args.minutes
    with tempfile.TemporaryDirectory() as folder:
        if args.nanogpt:
            theirs = train_nanogpt(args.nanogpt, Path(folder) / "nanogpt", environment)
            minutes = theirs["seconds"] / 60
        ours = train_ours(args.data, minutes, Path(folder), environment)
    result = {
        **kept(ours),
        **({"nanogpt": kept(theirs)} if theirs else {}),
        "bar": BAR,
        "aim": AIM,
        "threads": args.threads or usable_cores(),
        "passed": ours["val_loss"] <= BAR and ours["seconds"] <= 60 * minutes,
        "machine": fingerprint(),
    }
    write_json(RESULT, result)
    draw()
    for run in (result, result.get("nanogpt", {})):
        run.pop("curves", None)
    beside = f"; nanoGPT {theirs['val_loss']} in {theirs['seconds']} s" if theirs else ""
    print(f"validation {result['val_loss']} nats per character in {result['seconds']} s (bar {BAR}){beside}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
