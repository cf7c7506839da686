"""The model that sees and ships, from pictures that are rendered on the way to the files of a release, in one command:

    python recipes/nano_eyes.py                              # train for an hour with the preset eyes-cpu, then release
    python recipes/nano_eyes.py --run runs/nano_eyes         # release a run that has been trained
    python recipes/nano_eyes.py --card                       # only the card again, from results.json
    python recipes/nano_eyes.py --smoke --out FOLDER         # all of it in seconds

A release is a folder nano_eyes among the package's models, of at most 8 MiB with all that is in it: config.json, the
tokenizer, model.safetensors in blocks of 8 and 4 bits, README.md, results.json (every figure of the card),
accuracy.png and answers.png. Tests: tests/recipes/test_nano_eyes.py.
"""

import argparse
import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nano_llama.core.vision.config import VisionLanguageConfig
from nano_llama.core.vision.names import is_language_model, vision_language_shapes
from nano_llama.formats.kinds import Kind
from nano_llama.formats.vision_folder import open_vision_language, save_vision_language
from nano_llama.tokenizer import Tokenizer
from nano_llama.training.metrics import read_metrics
from nano_llama.training.saved_settings import load_settings
from nano_llama.training.settings import TrainSettings
from nano_llama.training.settings_layers import make_settings

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(Path(__file__).parent))
from nano_eyes_card import caption_of, draw_curve, make_card  # noqa: E402
from nano_eyes_results import measure, save_answers  # noqa: E402

LIMIT = 8 * 2**20  # bytes that the package may contain of it
MINUTES, EVALUATIONS = 60.0, 12  # the curve has a point every five minutes
PICTURES = 2_000  # of the test split
SCHEMES = {  # how matrices are stored: of the LLaMA's MLPs, and all others; the first that fits is taken
    "int8": (Kind.Q8_0, Kind.Q8_0),
    "int8, MLPs of the LLaMA int4": (Kind.Q4_1, Kind.Q8_0),
    "int4, but embedding int8": (Kind.Q4_1, Kind.Q4_1),
}
ANSWERS = "the first test pictures whose answers are right, then the first with a wrong one"
SMOKE = [
    "encoder=tiny", "tasks=shape,count", "single_first=8", "max_steps=4", "batch_size=4", "log_every=1",
    "evaluations=1",
]  # fmt: skip


def train(settings: TrainSettings, out: Path) -> None:
    """Train with Volume 2; an interrupted run is resumed."""
    from nano_llama.vol2_torch.trainer import Trainer

    Trainer(settings, out, resume=(out / "train.json").exists()).fit()


def kinds_of(config: VisionLanguageConfig, scheme: str) -> dict[str, str]:
    """{matrix: kind}. What has no rows of whole blocks, and all vectors, is stored as in the run."""
    mlp, other = SCHEMES[scheme]
    kinds: dict[str, str] = {}
    for name, shape in vision_language_shapes(config).items():
        if len(shape) == 2 and shape[1] % 32 == 0:
            kind = mlp if is_language_model(name) and ".mlp." in name else other
            kinds[name] = str(Kind.Q8_0 if name.endswith("embed_tokens.weight") else kind)
    return kinds


def release(run: Path, folder: Path, extra: Mapping[str, Any], pictures: int) -> None:
    """Write the folder from a run, measure the model before and after, and write its card."""
    config, weights = open_vision_language(run)
    tokenizer, settings = Tokenizer.from_pretrained(run), load_settings(run / "train.json")
    folder.parent.mkdir(parents=True, exist_ok=True)
    for scheme in SCHEMES:
        shutil.rmtree(folder, ignore_errors=True)
        save_vision_language(folder, config, weights, tokenizer, kinds=kinds_of(config, scheme), scheme=scheme)
        draw_curve(read_metrics(run / "metrics.jsonl"), config, settings, folder / "accuracy.png")
        save_answers(folder, settings, folder / "answers.png", pictures, caption_of(config, settings, ANSWERS))
        if size_of(folder) <= LIMIT - 32 * 2**10:  # the rest is for the card and its figures
            break
    stored = (folder / "model.safetensors").read_bytes()
    results = {
        **measure(folder, run, pictures), "scheme": scheme, "weights_bytes": len(stored),
        "sha256": hashlib.sha256(stored).hexdigest(), **extra,
    }  # fmt: skip
    (folder / "results.json").write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n")
    (folder / "README.md").write_text(make_card(results))
    size = size_of(folder)
    assert size <= LIMIT, f"{size:,} bytes: the package may contain at most {LIMIT:,}"
    print(f"written: {folder}, {size / 2**20:.2f} MiB ({scheme})")


def size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=MINUTES, help="how long to train")
    parser.add_argument("--run", type=Path, help="a finished run; default: train one now")
    parser.add_argument("--out", type=Path, help="folder of the release; default: this repository")
    parser.add_argument("--smoke", action="store_true", help="a smoke test: train for four steps")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a training setting to change")
    parser.add_argument("--note", default="", help="a sentence for the card, such as the machine it was trained on")
    parser.add_argument("--card", action="store_true", help="write the card again, and nothing else")
    options = parser.parse_args()
    shipped = ROOT / "nano_llama/models/nano_eyes"
    if options.card:
        (shipped / "README.md").write_text(make_card(json.loads((shipped / "results.json").read_text())))
        return
    run = options.run or Path(tempfile.mkdtemp() if options.smoke else ROOT / "runs") / "nano_eyes"
    if options.run is None:
        flags = {} if options.smoke else {"max_minutes": options.minutes, "evaluations": EVALUATIONS}
        changes = [*(SMOKE if options.smoke else []), *options.set]
        train(make_settings(preset="eyes-cpu", flags=flags, overrides=changes), run)
    folder = shipped if options.out is None else options.out / "nano_eyes"
    release(run, folder, {"note": options.note}, 24 if options.smoke else PICTURES)


if __name__ == "__main__":
    main()
