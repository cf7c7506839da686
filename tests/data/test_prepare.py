"""A corpus becomes a dataset: the same bytes for any number of workers, and clear words when it cannot."""

import json
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nano_llama.core.errors import EnvironmentFault, FormatError, UserError
from nano_llama.data import prepare as prepare_module
from nano_llama.data import units
from nano_llama.data.dataset import open_dataset
from nano_llama.data.prepare import prepare
from nano_llama.data.units import Part, Unit
from nano_llama.data.worker import WorkerPool
from nano_llama.tokenizer import Tokenizer

TEXT = "To be, or not to be, that is the question:\nWhether 'tis nobler in the mind to suffer\n" * 40


@pytest.fixture
def corpus(tmp_path) -> Path:
    folder = tmp_path / "corpus"
    folder.mkdir()
    for i in range(40):
        (folder / f"{i:02d}.txt").write_text(f"Number {i}: " + TEXT[i * 13 :] * (1 + i % 3), encoding="utf-8")
    return folder


def test_char_level_keeps_a_single_text_exactly(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text(TEXT)
    dataset = prepare(path, "char", tmp_path / "out")
    cut = int(0.9 * len(TEXT))
    decode = dataset.tokenizer.decode
    assert decode(dataset.train.read(0, dataset.train.num_tokens)) == TEXT[:cut]
    assert decode(dataset.val.read(0, dataset.val.num_tokens)) == TEXT[cut:]
    assert dataset.separator is None
    assert dataset.vocab_size == len(set(TEXT)) == dataset.tokenizer.vocab_size
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "dataset.json", "tokenizer", "train-00000.bin", "val-00000.bin",
    ]  # fmt: skip
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.txt", "out"]


def test_documents_end_with_the_separator(corpus, tmp_path):
    dataset = prepare(corpus, "bpe:300", tmp_path / "out")
    tokenizer = dataset.tokenizer
    assert dataset.separator == tokenizer.eos_id is not None
    for split in (dataset.train, dataset.val):
        for i in range(split.num_documents):
            info = split.document(i)
            ids = split.read(info.start, info.num_tokens).tolist()
            assert ids[-1] == tokenizer.eos_id and tokenizer.eos_id not in ids[:-1]
            assert tokenizer.decode(ids) == (corpus / info.name).read_text()
    assert dataset.train.num_documents + dataset.val.num_documents == 40


def test_the_bytes_do_not_depend_on_the_number_of_workers(corpus, tmp_path, tree):
    trees = []
    for workers in (1, 2, 3):
        out = tmp_path / f"out{workers}"
        prepare(corpus, "bpe:300", out, workers=workers, shard_bytes=20_000).verify()
        trees.append(tree(out))
    assert trees[0] == trees[1] == trees[2]
    assert len([name for name in trees[0] if name.startswith("train-")]) > 5


def test_what_is_there_is_opened_and_not_made_again(corpus, tmp_path, monkeypatch):
    first = prepare(corpus, "bpe:300")
    assert first.folder.parent.name == "datasets" and first.folder.name.startswith("corpus-")
    monkeypatch.setattr(prepare_module, "_write_shards", None)
    assert prepare(corpus, "bpe:300").fingerprint == first.fingerprint
    monkeypatch.undo()
    (corpus / "01.txt").write_text("changed")
    second = prepare(corpus, "bpe:300")
    assert second.folder != first.folder
    assert second.made_from["source_fingerprint"] != first.made_from["source_fingerprint"]


def test_a_tokenizer_may_be_given_named_or_trained(corpus, tmp_path, tree):
    trained = Tokenizer.train_bpe([TEXT], 290)
    trained.save_pretrained(tmp_path / "tokenizer")
    given = prepare(corpus, trained, tmp_path / "given")
    named = prepare(corpus, str(tmp_path / "tokenizer"), tmp_path / "named")
    assert tree(tmp_path / "given") == tree(tmp_path / "named")
    assert given.tokenizer.fingerprint == named.tokenizer.fingerprint == trained.fingerprint
    with pytest.raises(UserError, match="not among"):  # its characters do not suffice
        prepare(corpus, Tokenizer.train_char("abc"), tmp_path / "char")
    assert not list(tmp_path.glob("char*"))


def test_an_alphabet_has_the_characters_of_validation_text_too(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.txt").write_text("abc" * 20)
    (tmp_path / "data" / "val.txt").write_text("xyz")
    assert prepare(tmp_path / "data", "char", tmp_path / "out").vocab_size == 6


@pytest.mark.parametrize("name", ["bpe", "bpe:", "bpe:many", "bpe:-5", "bpe:100", "bpe:4_096"])
def test_a_vocabulary_that_cannot_be(corpus, tmp_path, name):
    with pytest.raises(UserError, match=r"bpe:|vocab"):
        prepare(corpus, name, tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


def test_arguments_that_cannot_be(corpus, tmp_path):
    with pytest.raises(UserError, match="workers=0"):
        prepare(corpus, "char", tmp_path / "out", workers=0)
    with pytest.raises(UserError, match="shard_bytes=0"):
        prepare(corpus, "char", tmp_path / "out", shard_bytes=0)


def test_a_folder_that_holds_something_else_is_left_alone(corpus, tmp_path, tree):
    out = tmp_path / "out"
    out.mkdir()
    prepare(corpus, "char", out)  # an empty folder may exist
    before = tree(out)
    with pytest.raises(UserError, match="made differently"):
        prepare(corpus, "bpe:300", out)
    assert tree(out) == before
    with pytest.raises(UserError, match="is not a dataset"):
        prepare(corpus, "char", corpus)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="is not a dataset"):
        prepare(corpus, "char", tmp_path / "file")


def test_a_damaged_document_is_named_and_leaves_no_files(corpus, tmp_path):
    (corpus / "20.txt").write_bytes(b"caf\xe9")
    for workers in (1, 2):
        with pytest.raises(FormatError, match=r"20\.txt.*0xe9"):
            prepare(corpus, Tokenizer.train_bpe([TEXT], 290), tmp_path / "out", workers=workers, shard_bytes=10**9)
        assert not list(tmp_path.glob("out*"))


def test_an_error_in_a_worker_keeps_its_type_and_message(corpus, tmp_path):
    with pytest.raises(UserError, match=r"U\+.* is not among"):
        prepare(corpus, Tokenizer.train_char("abc"), tmp_path / "out", workers=2)


def test_a_worker_that_dies_is_an_error_and_what_was_done_is_kept(corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "")
    command = [sys.executable, "-c", "import sys; sys.exit(7)"]
    from nano_llama.data import processes

    real = subprocess.Popen
    monkeypatch.setattr(processes.subprocess, "Popen", lambda _, **options: real(command, **options))
    with pytest.raises(EnvironmentFault, match="ended with code 7"):
        prepare(corpus, "char", tmp_path / "out", workers=2)


def test_a_worker_that_is_killed_while_others_work_ends_the_run(corpus, tmp_path):
    """Its thread has more units waiting: it must not wait for a worker that never comes back."""
    folder = tmp_path / "shards"
    folder.mkdir()
    Tokenizer.train_char(TEXT).save_pretrained(folder / "tokenizer")
    big = Unit("train-00000.bin", [Part(TEXT, len(TEXT.encode()), "a", len(TEXT.encode()))] * 2000)
    units = [replace(big, file=f"train-{i:05d}.bin") for i in range(12)]
    ended: list[BaseException] = []

    def work() -> None:
        try:
            with WorkerPool(folder, 2) as pool:
                pool.processes.all[0].kill()
                list(pool.run(units))
        except EnvironmentFault as error:
            ended.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive() and ended, "the pool waits for a worker that is dead"


def test_too_little_text(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(UserError, match="no text in the split 'train'"):
        prepare(tmp_path / "a.txt", "char", tmp_path / "out")


def test_progress_counts_the_bytes_of_text(corpus, tmp_path):
    seen = []
    dataset = prepare(corpus, "char", tmp_path / "out", shard_bytes=20_000, progress=lambda *told: seen.append(told))
    done = [number for what, number, _ in seen if what == "tokenizing"]
    assert done == sorted(done) and done[-1] == dataset.train.num_bytes + dataset.val.num_bytes
    assert all(total >= number for _, number, total in seen)


def test_two_at_once_make_one(corpus, tmp_path):
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(prepare(corpus, "bpe:280", tmp_path / "out"))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({dataset.fingerprint for dataset in found}) == 1 and len(found) == 3
    assert not list(tmp_path.glob("*.partial"))


def test_a_user_script_without_a_main_guard_can_use_workers(corpus, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from nano_llama.data.prepare import prepare\n"
        f"print(prepare({str(corpus)!r}, 'bpe:300', {str(tmp_path / 'out')!r}, workers=2).train.num_tokens)\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == open_dataset(tmp_path / "out").train.num_tokens


def test_one_long_line_is_worked_on_in_parts(tmp_path, monkeypatch):
    """So no encoding of the whole is ever in memory. Emoji have no place between words: they are cut anywhere."""
    monkeypatch.setattr(units, "PART_CHARACTERS", 50_000)
    path = tmp_path / "line.txt"
    path.write_text("0123456789abcde " * 60_000 + "\U0001f600" * 60_000, encoding="utf-8")
    dataset = prepare(path, Tokenizer.train_bpe(["0123456789abcde "], 260), tmp_path / "out", workers=1)
    assert dataset.train.num_bytes + dataset.val.num_bytes == 1_200_000
    assert dataset.train.num_documents == dataset.val.num_documents == 1
    decoded = dataset.tokenizer.decode(dataset.train.read(0, dataset.train.num_tokens).tolist())
    assert decoded == path.read_text(encoding="utf-8")[: int(0.9 * 1_020_000)]


def test_the_description_says_nothing_of_this_machine(corpus, tmp_path):
    prepare(corpus, "char", tmp_path / "out")
    text = (tmp_path / "out" / "dataset.json").read_text()
    assert str(tmp_path) not in text and json.loads(text)["made_from"]["source"] == "corpus"


def test_a_sample_for_the_tokenizer_is_spread_over_the_corpus():
    from nano_llama.data.prepare import SAMPLE_PIECE, _sample
    from nano_llama.data.readers import Document

    documents = [Document("long", "".join(chr(65 + i) * SAMPLE_PIECE for i in range(10))), Document("short", "z")]
    assert [piece[0] for piece in _sample(documents, 1)] == list("ABCDEFGHIJz")
    assert [piece[0] for piece in _sample(documents, 4)] == list("AEI")
    assert np.all([len(piece) <= SAMPLE_PIECE for piece in _sample(documents, 1)])
