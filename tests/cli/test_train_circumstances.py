"""Bad data and bad circumstances, through the command itself: a clear error with its next step and its exit code, never
a traceback, and what was learned is kept: `--resume` ends with the bits of the undisturbed run.
"""

import json
import os
import signal
import time

import numpy as np
import pytest

pytest.importorskip("torch")

from nano_llama.formats import open_weights, save_safetensors

STEPS = 180
RECIPE = (
    *("--model", "tiny", "--context", 16, "--batch-size", 4, "--dropout", 0.1, "--ema", 0.9),
    *("--evaluations", 1, "--log-every", 1, "--samples", 1, "--num-threads", 1, "--compile", "off", "--device", "cpu"),
)


@pytest.fixture
def train(command, tmp_path, tale):
    def start(*more, data=tale, tokenizer="char", steps=STEPS, **options):
        given = ("--data", data, "--out", tmp_path / "run", "--tokenizer", tokenizer, "--max-steps", steps)
        return command.start("train", *given, *RECIPE, *more, **options)

    def train(*more, **options):
        start(*more, **options)
        return command.end()

    train.start = start
    return train


@pytest.fixture(scope="module")
def expected(tmp_path_factory, the_command, tale):
    """The final weights of the undisturbed run."""
    folder = tmp_path_factory.mktemp("whole")
    the_command.log = folder / "log.txt"
    given = ("--data", tale, "--out", folder / "run", "--tokenizer", "char", "--max-steps", STEPS)
    code, said = the_command.run("train", *given, *RECIPE)
    assert code == 0, said
    return (folder / "run" / "model.safetensors").read_bytes()


def told(ended, code, *words):
    """Exit code and message are as they should be: what is wrong, and on another line what to do."""
    assert ended[0] == code, ended[1]
    assert all(str(word) in ended[1] for word in words), ended[1]
    assert "Traceback" not in ended[1] and "inside nano-llama" not in ended[1] and "\n" in ended[1].strip(), ended[1]


def resumed(command, tmp_path, *more, **options):
    return command.run("train", "--out", tmp_path / "run", "--resume", "--quiet", *more, **options)


def goes_on(command, tmp_path, expected):
    code, said = resumed(command, tmp_path)
    assert code == 0, said
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == expected


def wait_for_lines(tmp_path, count, seconds=300):
    """Until the run has written so many lines of metrics."""
    metrics, begin = tmp_path / "run" / "metrics.jsonl", time.monotonic()
    while not metrics.exists() or metrics.read_bytes().count(b"\n") < count:
        assert time.monotonic() - begin < seconds
        time.sleep(0.001)


def steps_kept(tmp_path):
    return sorted(int(path.name[5:]) for path in (tmp_path / "run" / "checkpoints").glob("step-*"))


# -- data and files ---------------------------------------------------------------------------------------------------


def empty(path):
    path.touch()


def junk(path):
    path.write_bytes(np.random.default_rng(0).bytes(10_000))


def parquet_cut_short(path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table({"text": ["the cat and the bird " * 99] * 20}), path)
    path.write_bytes(path.read_bytes()[:-300])


def unreadable(path):
    path.write_text("secret")
    path.chmod(0)


def other_json(path):
    path.write_text('{"a": 1}')


@pytest.mark.parametrize(
    ("option", "name", "make"),
    [
        ("data", "empty.txt", empty), ("data", "junk.txt", junk), ("data", "cut.parquet", parquet_cut_short),
        ("data", "secret.parquet", unreadable), ("tokenizer", "junk.json", junk),
        ("tokenizer", "other.json", other_json),
    ],
)  # fmt: skip
def test_unusable_data_and_tokenizers_are_refused(train, tmp_path, option, name, make):
    make(tmp_path / name)
    told(train(**{option: tmp_path / name}), 2, name)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow  # 50 MB are encoded
def test_a_line_of_50_megabytes_is_learned_from(train, tmp_path):
    for name, content in (("a.jsonl", json.dumps({"text": "abcdefgh " * (50 * 2**20 // 9)})), ("val.txt", "abcdefgh")):
        (tmp_path / "texts" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "texts" / name).write_text(content)
    code, said = train(steps=2, data=tmp_path / "texts")
    assert code == 0, said


@pytest.mark.parametrize("harm", [pytest.param("missing", marks=pytest.mark.slow), "altered"])  # three runs each
def test_a_damaged_shard(train, command, tmp_path, expected, harm, monkeypatch):
    monkeypatch.setattr(command, "cache", tmp_path / "cache")
    child = train.start()
    wait_for_lines(tmp_path, 20)
    os.kill(child, signal.SIGINT)
    told(command.end(), 130)
    shard = next((tmp_path / "cache" / "datasets").glob("*/train-00000.bin"))
    content = shard.read_bytes()
    if harm == "missing":
        shard.unlink()
    else:
        shard.write_bytes(content[:5000] + bytes([content[5000] ^ 1]) + content[5001:])
    told(resumed(command, tmp_path), 2, shard)
    shard.write_bytes(content)
    goes_on(command, tmp_path, expected)


def test_weights_with_nan(train, command, make_tiny, tmp_path, tale):
    folder = make_tiny(tmp_path / "model", kind="char")
    with open_weights(folder) as saved:
        weights = {name: np.array(saved[name]) for name in saved}
    spoiled = next(name for name in weights if "down_proj" in name)
    weights[spoiled][0, 0] = np.nan
    save_safetensors(folder / "model.safetensors", weights)
    words = ("--context", 16, "--max-steps", 2, "--compile", "off", "--device", "cpu")
    text = folder / "text.txt"
    text.write_text("the quick brown fox jumps over the lazy dog, and the dog sleeps on. " * 40)
    ended = command.run("train", "--data", text, "--out", tmp_path / "run", "--init-from", folder, *words)
    told(ended, 2, folder, spoiled)
    assert not (tmp_path / "run").exists()


# -- the machine ------------------------------------------------------------------------------------------------------


def test_no_permission_to_write(train, tmp_path):
    tmp_path.chmod(0o555)
    (tmp_path / "log.txt").touch()
    try:
        told(train(), 1, "no permission", tmp_path)
    finally:
        tmp_path.chmod(0o755)


def test_disk_full_at_a_checkpoint(train, command, tmp_path, expected):
    """No file may be larger than the model itself: what the optimizer remembers does not fit."""
    child = train.start()
    wait_for_lines(tmp_path, 20)
    os.kill(child, signal.SIGINT)
    told(command.end(), 130, "--resume")
    kept = steps_kept(tmp_path)
    size = (tmp_path / "run" / "model.safetensors").stat().st_size
    ended = resumed(command, tmp_path, "--checkpoint-minutes", 0.0001, limits={"FSIZE": size + 500})
    told(ended, 1, "Cannot write", "checkpoints", "File too large", "--resume")
    assert steps_kept(tmp_path) == kept and not list((tmp_path / "run/checkpoints").glob(".*"))
    goes_on(command, tmp_path, expected)


def test_disk_full_while_writing_metrics(train, command, tmp_path, expected):
    """What was learned by then fits: it is kept."""
    told(train(limits={"FSIZE": 52_000}), 1, "metrics.jsonl", "File too large")
    assert steps_kept(tmp_path)[-1] > STEPS // 2
    goes_on(command, tmp_path, expected)


def test_a_run_beyond_memory_is_refused(train, tmp_path):
    limits = {"AS": 6 * 2**30}
    ended = train("--hidden-size", 4096, "--intermediate-size", 16384, "--num-hidden-layers", 12, limits=limits)
    told(ended, 2, "This run needs about", "is free", "--model")
    assert not (tmp_path / "run").exists()


def test_a_killed_data_worker(train, command, tmp_path, expected):
    psutil = pytest.importorskip("psutil")
    child = train.start("--data-workers", 2)
    wait_for_lines(tmp_path, 20)
    children = psutil.Process(child).children()
    assert len(children) == 2
    children[0].kill()
    told(command.end(), 1, "A worker that was making batches ended with code -9", "--data-workers 0")
    assert steps_kept(tmp_path)[-1] >= 20
    goes_on(command, tmp_path, expected)


# -- the user's hand --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "code", "says"),
    [
        # slow: a second run to kill; test_a_second_signal_stops_at_once sends the same signal
        pytest.param(signal.SIGINT, 130, "Stopped by Ctrl-C", marks=pytest.mark.slow),
        (signal.SIGTERM, 143, "Stopped by SIGTERM"),
    ],
)
def test_a_signal_stops_the_run_and_keeps_it(train, command, tmp_path, expected, number, code, says):
    child = train.start()
    wait_for_lines(tmp_path, 20)
    os.kill(child, number)
    told(command.end(), code, says, "progress saved", "--resume")
    assert steps_kept(tmp_path)[-1] >= 20
    goes_on(command, tmp_path, expected)


def test_a_second_signal_stops_at_once(train, command, tmp_path, expected):
    child = train.start("--checkpoint-minutes", 0.0001)
    wait_for_lines(tmp_path, 20)
    os.kill(child, signal.SIGINT)
    time.sleep(0.002)  # else two signals are one
    os.kill(child, signal.SIGINT)
    ended = command.end()
    told(ended, 130, "--resume")
    assert "at once by a second Ctrl-C" in ended[1] or "progress saved" in ended[1]
    goes_on(command, tmp_path, expected)
