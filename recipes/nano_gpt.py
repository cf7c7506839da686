"""The model that ships, from the fetched books to the files of a release, in one command:

    python recipes/nano_gpt.py                              # train with the preset nano, then release
    python recipes/nano_gpt.py --run runs/nano_gpt          # release a run that has been trained
    python recipes/nano_gpt.py --card                       # only the card again, from results.json
    python recipes/nano_gpt.py --smoke TEXT --out FOLDER    # all of it in seconds, on any text

A release is two copies of the same bfloat16 weights, and the model card:

    nano_gpt.pth                    a plain state dict under Hugging Face's names
    nano_llama/models/nano_gpt/     config.json, model.safetensors, the tokenizer, generation_config.json, README.md,
                                    results.json (every figure of the card), loss.png

Tests: tests/recipes/test_nano_gpt.py.
"""

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from nano_llama.formats import open_weights, read_config, save_hf, save_pth
from nano_llama.tokenizer import Tokenizer
from nano_llama.training.metrics import read_metrics
from nano_llama.training.settings import TrainSettings
from nano_llama.training.settings_layers import make_settings

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(Path(__file__).parent))
from nano_gpt_card import make_card  # noqa: E402
from nano_gpt_results import measure  # noqa: E402

LIMIT = 16 * 2**20  # bytes of weights that the package may contain
SMOKE = [
    "model=tiny",
    "hidden_size=32",
    "intermediate_size=64",
    "context=64",
    "tokenizer=bpe:300",
    "max_steps=12",
    "log_every=1",
]


def train(settings: TrainSettings, out: Path) -> None:
    """Train with Volume 2; an interrupted run is resumed."""
    from nano_llama.vol2_torch.trainer import Trainer

    Trainer(settings, out, resume=(out / "train.json").exists()).fit()


def release(run: Path, pth: Path, folder: Path, extra: dict[str, Any], new_tokens: int) -> None:
    """Write nano_gpt.pth and the Hugging Face folder from a run, measure the model, and write its card."""
    config, tokenizer = read_config(run), Tokenizer.from_pretrained(run)
    for old in (pth, folder):
        shutil.rmtree(old) if old.is_dir() else old.unlink(missing_ok=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open_weights(run) as weights:
        save_hf(folder, config, weights, tokenizer, dtype="BF16")
        save_pth(pth, weights, dtype="BF16")
    size = (folder / "model.safetensors").stat().st_size
    assert size <= LIMIT, f"{size:,} bytes of weights: the package may contain at most {LIMIT:,}"
    shutil.copy(run / "loss.png", folder / "loss.png")
    results = {**measure(folder, run, new_tokens), **extra}
    (folder / "results.json").write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n")
    (folder / "README.md").write_text(make_card(results))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="classic-books", help="the books, or a folder that holds them")
    parser.add_argument("--run", type=Path, help="a finished run; default: train one now")
    parser.add_argument("--out", type=Path, help="folder of the release; default: this repository")
    parser.add_argument("--smoke", metavar="TEXT", help="a smoke test: train on this file, for seconds")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a training setting to change")
    parser.add_argument("--note", default="", help="a sentence for the card, such as the machine it was trained on")
    parser.add_argument("--card", action="store_true", help="write the card again, and nothing else")
    options = parser.parse_args()
    if options.card:
        folder = ROOT / "nano_llama/models/nano_gpt"
        (folder / "README.md").write_text(make_card(json.loads((folder / "results.json").read_text())))
        return
    place = options.out or ROOT
    run = options.run or Path(tempfile.mkdtemp() if options.smoke else ROOT / "runs") / "nano_gpt"
    if options.run is None:
        flags = {"data": options.smoke or options.data}
        train(
            make_settings(preset="nano", flags=flags, overrides=[*(SMOKE if options.smoke else []), *options.set]), run
        )
    last = read_metrics(run / "metrics.jsonl")[-1]
    print(f"{run}: {last['step']:,} steps, validation loss {last.get('val_loss', float('nan')):.4f}")
    folder = place / ("nano_llama/models/nano_gpt" if options.out is None else "nano_gpt")
    release(run, place / "nano_gpt.pth", folder, {"note": options.note}, 20 if options.smoke else 200)
    print(f"written: {place / 'nano_gpt.pth'} and {folder}")


if __name__ == "__main__":
    main()
