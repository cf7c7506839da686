"""A split is one row of tokens, wherever its shards begin and end."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from nano_llama.core.errors import FormatError
from nano_llama.data import dataset as dataset_module
from nano_llama.data.batches import Batches
from nano_llama.data.dataset import Dataset, TokenSplit, open_dataset
from nano_llama.data.prepare import prepare

DOCUMENTS = [f"{i} " + "abcdefgh " * (i * 5 % 17) for i in range(60)]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Dataset:
    folder = tmp_path_factory.mktemp("dataset")
    (folder / "corpus").mkdir()
    for i, text in enumerate(DOCUMENTS):
        (folder / "corpus" / f"{i:02d}.md").write_text(text)
    (folder / "corpus" / "val.txt").write_text("val abc")
    return prepare(folder / "corpus", "bpe:270", folder / "data", shard_bytes=300)


@pytest.fixture(scope="module")
def row(dataset) -> np.ndarray:
    """All training tokens, encoded here and now."""
    ids: list[int] = []
    for text in DOCUMENTS:
        ids += [*dataset.tokenizer.encode(text), dataset.separator]
    return np.array(ids)


def test_any_stretch_can_be_read(dataset, row):
    split = dataset.train
    assert len(split.paths) > 10 and split.num_tokens == len(split) == len(row)
    rng = np.random.default_rng(0)
    for start, end in np.sort(rng.integers(0, len(row) + 1, (300, 2)), axis=1).tolist():
        found = split.read(start, end - start)
        assert found.dtype == np.uint16 and np.array_equal(found, row[start:end])
    assert np.array_equal(split.read(0, len(row)), row)
    assert split.read(len(row), 0).tolist() == []


@pytest.mark.parametrize(("start", "count"), [(-1, 1), (0, -1), (0, 10**9), (10**9, 0)])
def test_outside_is_an_index_error(dataset, start, count):
    with pytest.raises(IndexError, match="of a split of"):
        dataset.train.read(start, count)


def test_few_files_are_open_at_a_time(dataset, row, monkeypatch):
    monkeypatch.setattr(dataset_module, "OPEN_SHARDS", 3)
    split = open_dataset(dataset.folder).train
    for start in range(0, len(row) - 50, 37):
        assert np.array_equal(split.read(start, 50), row[start : start + 50])
        assert len(split._open) <= 3
    assert Batches(split, 4, 32).next()[0].shape == (4, 32)


def test_a_split_goes_to_another_process_without_its_maps(dataset, row):
    dataset.train.read(0, 5)
    assert dataset.train.table
    sent = pickle.dumps(dataset.train)
    assert len(sent) < 20_000
    split = pickle.loads(sent)
    assert isinstance(split, TokenSplit) and np.array_equal(split.read(3, 99), row[3:102])
    assert split.document(1) == dataset.train.document(1)


def test_documents_by_number_and_by_position(dataset, row):
    split = dataset.train
    assert split.num_documents == 60
    position = 0
    expected_ids = []
    for i, text in enumerate(DOCUMENTS):
        info = split.document(i)
        assert (info.name, info.start, info.num_bytes) == (f"{i:02d}.md", position, len(text))
        assert dataset.tokenizer.decode(split.read(info.start, info.num_tokens).tolist()) == text
        assert split.document_at(position) == split.document_at(position + info.num_tokens - 1) == info
        expected_ids += [i] * info.num_tokens
        position += info.num_tokens
    assert split.document_starts.tolist() == [split.document(i).start for i in range(60)]
    assert split.document_ids(0, len(row)).tolist() == expected_ids
    assert split.document_ids(7, 30).tolist() == expected_ids[7:37]


def test_counts(dataset):
    assert dataset.train.num_bytes == sum(map(len, DOCUMENTS))
    assert (dataset.val.num_documents, dataset.val.num_bytes) == (1, 7)
    assert dataset.source == "corpus" and 257 < dataset.vocab_size == dataset.tokenizer.vocab_size <= 270
    assert Path(dataset.folder, "dataset.json").exists()
    dataset.verify()


def test_a_shard_is_read_whole_before_it_is_used_and_once(dataset, tmp_path, monkeypatch):
    shutil.copytree(dataset.folder, tmp_path / "data")
    split, read = open_dataset(tmp_path / "data").train, []
    verify = dataset_module.Shard.verify
    monkeypatch.setattr(dataset_module.Shard, "verify", lambda shard: read.append(shard.path.name) or verify(shard))
    monkeypatch.setattr(dataset_module, "OPEN_SHARDS", 2)
    for _ in range(2):
        split.read(0, split.num_tokens)
    assert read == [path.name for path in split.paths]
    altered = bytearray(split.paths[3].read_bytes())
    altered[-1] ^= 1
    split.paths[3].write_bytes(altered)
    fresh = open_dataset(tmp_path / "data").train
    fresh.read(0, 10)
    with pytest.raises(FormatError, match=split.paths[3].name):
        fresh.read(0, fresh.num_tokens)


def test_the_repr_says_what_is_in_it(dataset):
    shown = repr(dataset)
    assert f"train {dataset.train.num_tokens:,} tokens in {dataset.train.num_documents} documents" in shown
    assert str(dataset.folder) in shown and "1 document;" in shown
