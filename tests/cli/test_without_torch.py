"""A machine without any extra: training, generating, exporting and info work by the base packages alone."""

import subprocess
import sys

SCRIPT = """
import sys
for name in ("torch", "transformers", "huggingface_hub", "gguf"):
    sys.modules[name] = None  # as if it were not installed
from nano_llama.cli import main
data, out = sys.argv[1:]
shape = ["--tokenizer", "bpe:300", "--model", "tiny", "--hidden-size", "64"]
shape += ["--intermediate-size", "96", "--context", "16", "--evaluations", "1"]
runs = [
    (0, ["train", "--data", data, "--out", f"{out}/run", "--engine", "numpy", "--max-steps", "2", *shape]),
    (0, ["generate", "--model", f"{out}/run", "--prompt", "the", "--max-tokens", "5"]),
    (0, ["info", f"{out}/run"]),
    (0, ["export", "--model", f"{out}/run", "--format", "hf", "--out", f"{out}/hf"]),
    (0, ["export", "--model", f"{out}/run", "--format", "gguf", "--out", f"{out}/m.gguf", "--dtype", "q8_0"]),
    (0, ["info", f"{out}/m.gguf"]),
    (0, ["doctor"]),
    (0, ["study"]),
    (0, ["learn", "list"]),
    (1, ["train", "--data", data, "--out", f"{out}/other", "--max-steps", "2", *shape]),
    (1, ["eval", "--model", f"{out}/run"]),
    (0, ["generate", "--model", f"{out}/run", "--prompt", "the", "--max-tokens", "5", "--engine", "engine"]),
    (1, ["generate", "--model", f"{out}/run", "--prompt", "the", "--engine", "torch"]),
    (1, ["verify", "--model", f"{out}/run"]),
    (1, ["generate", "--model", "some/model", "--prompt", "the"]),
]
for wanted, words in runs:
    code = main(words)
    print("RAN", words[0], code, "as wanted" if code == wanted else f"BUT {wanted} WAS WANTED", flush=True)
"""


def test_the_base_install_is_enough(tiny_text, tmp_path):
    command = [sys.executable, "-c", SCRIPT, str(tiny_text), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.count("as wanted") == 15, done.stdout + done.stderr
    assert "inside nano-llama" not in done.stderr
    assert done.stderr.count("pip install") == 5, "every refusal says what to install"
