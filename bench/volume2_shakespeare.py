"""Shakespeare by characters in two minutes on a CPU, everything counted from the command's start.

    python bench/volume2_shakespeare.py --data tinyshakespeare.txt [--minutes 2]      (or: shakespeare, downloaded)

Runs  nano-llama train --preset shakespeare-cpu  as a user would and reads what it kept. The loss is over the whole
validation split (the last tenth of the text), in consecutive windows of 64 characters, in nats a character. Bar:
1.8857, which nanoGPT's own CPU command reached in 125 s on the machine of the project's plans. Writes
bench/results/volume2_shakespeare.json; the last line printed is that file's content.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _machine import fingerprint

from nano_llama.core.files import read_json, write_json

RESULTS = Path(__file__).parent / "results"
BAR = 1.8857


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="shakespeare")
    parser.add_argument("--minutes", type=float, default=2.0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [sys.executable, "-c", "import sys; from nano_llama.cli import main; sys.exit(main())", "train"]
        command += ["--preset", "shakespeare-cpu", "--data", args.data, "--out", str(run)]
        began = time.perf_counter()
        subprocess.run([*command, "--max-minutes", str(args.minutes), "--json"], check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - began
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        settings = read_json(run / "train.json")
    last = [line for line in lines if "val_loss" in line][-1]
    result = {
        "seconds": round(seconds, 1),
        "val_loss": round(last["val_loss"], 4),
        "val_bits_per_byte": round(last["val_bits_per_byte"], 4),
        "bar": BAR,
        "passed": last["val_loss"] < BAR and seconds < 60 * args.minutes,
        "steps": last["step"],
        "tokens_per_second": round(last["tokens"] / last["elapsed_s"]),
        "settings": {key: settings[key] for key in ("optimizer", "lr", "batch_size", "context", "engine", "seed")},
        "machine": fingerprint(),
    }
    write_json(RESULTS / "volume2_shakespeare.json", result)
    print(f"validation {result['val_loss']} nats a character in {seconds:.1f} s (bar {BAR})")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
