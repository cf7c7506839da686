"""What nine instruments see of the museum's faults, and what the loss says of them: who relies on a falling loss?

    python bench/museum.py

Each room's fault has a process of its own: the nine instruments of learn/museum/instruments.py, then 120 steps of
AdamW on the standard library's source (2 layers, width 48, batch 8 x 32), whose last 20 losses are averaged and
compared with the sound package's. Processes are forked from one that has imported NumPy and PyTorch and none of our
modules. Takes minutes. Writes bench/results/museum.json, from which the book's page takes its figures: numbers of
rooms, no names of files.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch  # imported before the fork, for the reference

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "bench" / "results" / "museum.json"
STEPS, LAST = 120, 20
NOTICED = 0.03  # nats: less than anybody would notice


def probe() -> dict:
    """In the process of one fault: its tree is first on the path."""
    from nano_llama.learn.museum.instruments import INSTRUMENTS, ask

    seen = {name: ask(name) for name in INSTRUMENTS}
    try:
        with np.errstate(all="ignore"):
            loss = trained_loss()
    except Exception:  # a crash is a result
        loss = None
    return {"seen": seen, "loss": loss if loss is not None and np.isfinite(loss) else None}


def trained_loss() -> float:
    from nano_llama import LlamaConfig
    from nano_llama.data.batches import ArrayTokens, Batches
    from nano_llama.studies.small_runs import characters
    from nano_llama.training.schedule import learning_rate
    from nano_llama.vol1_numpy import Llama
    from nano_llama.vol1_numpy.optim import AdamW, clip_by_global_norm

    ids, vocab_size = characters(40_000)
    config = LlamaConfig(
        vocab_size=vocab_size, hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=True,
    )  # fmt: skip
    model = Llama.init(config, seed=0, threads=1)
    optimizer = AdamW(model.params, 3e-3, betas=(0.9, 0.999), weight_decay=0.1)
    batches, losses = Batches(ArrayTokens(ids), 8, 32, seed=0), []
    for step in range(1, STEPS + 1):
        loss, grads = model.loss_and_grads(*next(batches))
        clip_by_global_norm(grads, 1.0)
        optimizer.step(model.params, grads, learning_rate("cosine", step / STEPS, 3e-3, 0.1, 0.1))
        losses.append(loss)
    return float(np.mean(losses[-LAST:]))


def in_a_fork(tree: str) -> dict:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        sys.path.insert(0, tree)
        answer = probe()
        with os.fdopen(writing, "w") as out:
            json.dump(answer, out)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as stream:
        text = stream.read()
    os.waitpid(child, 0)
    return json.loads(text)


def write_trees(folder: Path) -> list[tuple[int, int]]:
    """A tree for every room, in another process, so that this one has none of our modules. -> (number, stars)"""
    code = (
        "import sys, json; from pathlib import Path; sys.path.insert(0, sys.argv[2])\n"
        "from nano_llama.learn.museum.catalogue import rooms\n"
        "from nano_llama.learn.museum.trees import edited, write_tree\n"
        "for room in rooms(): write_tree(Path(sys.argv[1]) / str(room.number), edited(room.files, room.plant))\n"
        "write_tree(Path(sys.argv[1]) / '0', {})\n"
        "print(json.dumps([(room.number, room.stars) for room in rooms()]))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(folder), str(ROOT)], capture_output=True, text=True, check=True
    )
    return [tuple(pair) for pair in json.loads(ran.stdout)]


def warm_up() -> None:
    """What PyTorch imports at its first step of AdamW, before the forks, for all of them."""
    torch.set_num_threads(1)
    weight = torch.zeros(2, requires_grad=True)
    weight.sum().backward()
    torch.optim.AdamW([weight]).step()


def main() -> None:
    warm_up()
    with tempfile.TemporaryDirectory() as name:
        rooms = write_trees(Path(name))
        sound = in_a_fork(f"{name}/0")
        assert not any(sound["seen"].values()), sound
        print("sound", sound["loss"], flush=True)
        faults = []
        for number, stars in rooms:
            found = in_a_fork(f"{name}/{number}")
            seen_by = [instrument for instrument, finding in found["seen"].items() if finding]
            faults.append({"room": number, "stars": stars, "loss": found["loss"], "seen_by": seen_by})
            print(faults[-1], flush=True)
    result = {
        "command": "python bench/museum.py",
        "instruments": list(sound["seen"]),
        "steps": STEPS,
        "noticed": NOTICED,
        "sound_loss": sound["loss"],
        "faults": faults,
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
