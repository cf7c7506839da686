"""Names, files and folders -> documents in a fixed order, and the three rules of splitting."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nano_llama.core.errors import UserError
from nano_llama.data import corpus
from nano_llama.data.sources import SPLITS, open_source


def texts(source, split):
    return [document.text for document in source.documents(split)]


def names(source, split):
    return [document.name for document in source.documents(split)]


def test_a_single_text_is_cut_as_nanogpt_cuts_it(tmp_path):
    text = "".join(chr(65 + i % 50) for i in range(1237)) + "äöü😀"
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    n = len(text)
    for place in (tmp_path / "a.txt", tmp_path):  # alone, or alone in its folder
        source = open_source(place)
        assert texts(source, "train") == [text[: int(n * 0.9)]]
        assert texts(source, "val") == [text[int(n * 0.9) :]]


def test_one_document_in_a_jsonl_is_a_single_text(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "0123456789"}))
    source = open_source(tmp_path / "a.jsonl")
    assert (texts(source, "train"), texts(source, "val")) == (["012345678"], ["9"])


def test_a_folder_with_val_files(tmp_path):
    (tmp_path / "b.txt").write_text("b")
    (tmp_path / "a.md").write_text("a")
    (tmp_path / "val.txt").write_text("v1")
    pq.write_table(pa.table({"text": ["v2", "v3"]}), tmp_path / "val.parquet")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "val.txt").write_text("v0")
    (tmp_path / "validate.txt").write_text("t")
    source = open_source(tmp_path)
    assert names(source, "train") == ["a.md", "b.txt", "validate.txt"]
    assert texts(source, "val") == ["v0", "v2", "v3", "v1"]


def test_a_data_set_as_the_hub_names_its_files(tmp_path):
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n# a card\n")
    (tmp_path / "data").mkdir()
    for split in ("train", "validation", "test"):
        for part in range(2):
            table = pa.table({"text": [f"{split} {part} {row}" for row in range(5)]})
            pq.write_table(table, tmp_path / "data" / f"{split}-{part:05d}-of-00002.parquet")
    with pytest.warns(UserWarning) as said:
        source = open_source(tmp_path)
    assert {text.split()[0] for text in texts(source, "train")} == {"train"}
    assert {text.split()[0] for text in texts(source, "val")} == {"validation"}
    assert len(texts(source, "train")) == len(texts(source, "val")) == 10
    assert any("test-00000-of-00002.parquet" in str(one.message) for one in said)
    assert any("README.md" in str(one.message) for one in said)
    before = source.fingerprint()
    (tmp_path / "README.md").write_text("another card")
    with pytest.warns(UserWarning):
        assert open_source(tmp_path).fingerprint() == before


def test_a_test_split_without_a_validation_split_stays_out(tmp_path):
    (tmp_path / "train.jsonl").write_text("".join(json.dumps({"text": f"t{i}"}) + "\n" for i in range(60)))
    (tmp_path / "test.jsonl").write_text(json.dumps({"text": "secret"}))
    with pytest.warns(UserWarning, match="test split"):
        source = open_source(tmp_path)
    assert sorted(texts(source, "train") + texts(source, "val")) == sorted(f"t{i}" for i in range(60))
    assert texts(source, "val")


def test_only_a_test_split_is_refused_but_may_be_named(tmp_path):
    (tmp_path / "test.txt").write_text("0123456789")
    with pytest.raises(UserError, match="only test files") as caught:
        open_source(tmp_path)
    assert str(tmp_path / "test.txt") in caught.value.hint
    assert texts(open_source(tmp_path / "test.txt"), "train") == ["012345678"]


def test_a_card_is_not_taken_for_data_of_a_kind_that_is_not_read(tmp_path):
    (tmp_path / "README.md").write_text("a card")
    assert texts(open_source(tmp_path), "train") == ["a car"]  # alone it is a text
    (tmp_path / "train.json").write_text("[]")
    with pytest.raises(UserError, match=r"train\.json") as caught:
        open_source(tmp_path)
    assert ".jsonl or .parquet" in caught.value.hint
    assert texts(open_source(tmp_path / "README.md"), "train") == ["a car"]


@pytest.mark.parametrize("name", ["validation.json", "test.csv", "data/valid-00000-of-00001.arrow", "val.jsonl.xz"])
def test_a_split_of_a_kind_that_is_not_read_is_said(tmp_path, name):
    (tmp_path / "train.txt").write_text("0123456789")
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("x")
    (tmp_path / "config.json").write_text("{}")
    with pytest.warns(UserWarning, match="files of this kind are not") as said:
        source = open_source(tmp_path)
    assert name in str(said[0].message) and "config.json" not in str(said[0].message)
    assert texts(source, "train") == ["012345678"]


def test_separated_documents_of_a_text_split_by_document(tmp_path):
    stories = [f"Story {i}.\nIt ends." for i in range(200)]
    (tmp_path / "a.txt").write_text("\n<|endoftext|>\n".join(stories))
    source = open_source(tmp_path / "a.txt")
    val = texts(source, "val")
    assert 2 <= len(val) <= 25
    assert sorted(texts(source, "train") + val) == sorted(stories)


def test_documents_split_by_their_name_alone(tmp_path):
    for i in range(300):
        (tmp_path / f"{i}.txt").write_text(f"text {i}")
    source = open_source(tmp_path)
    val = set(names(source, "val"))
    assert 5 <= len(val) <= 30  # one in twenty
    assert sorted([*names(source, "train"), *val]) == sorted(f"{i}.txt" for i in range(300))
    for i in range(300, 400):
        (tmp_path / f"{i}.txt").write_text("more")
    (tmp_path / "7.txt").write_text("changed")
    assert {name for name in names(open_source(tmp_path), "val") if int(name[:-4]) < 300} == val


@pytest.mark.parametrize("count", [2, 3, 4, 5, 6, 8])
def test_a_few_documents_leave_no_split_empty(tmp_path, count):
    for i in range(count):
        (tmp_path / f"{i}.txt").write_text(f"text {i}")
    source = open_source(tmp_path)
    assert names(source, "train") and names(source, "val")
    assert sorted(names(source, "train") + names(source, "val")) == [f"{i}.txt" for i in range(count)]


def test_no_split_is_empty_either_where_most_names_fall_to_validation(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, "_place", lambda name: 0.001 * int(name[0]))
    for i in range(4):
        (tmp_path / f"{i}.txt").write_text("text")
    source = open_source(tmp_path)
    assert (names(source, "train"), names(source, "val")) == (["3.txt"], ["0.txt", "1.txt", "2.txt"])


def test_a_folder_is_read_in_the_order_of_its_paths_without_hidden_and_foreign_files(tmp_path):
    for name in ("b/2.txt", "b/10.txt", "a.py", "c.md", ".git/config.txt", "b/.hidden.md", "picture.png", "README"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nowhere")
    (tmp_path / "empty.txt").write_text("")
    source = open_source(tmp_path)
    assert sorted(names(source, "train") + names(source, "val")) == ["a.py", "b/10.txt", "b/2.txt", "c.md"]
    order = [name for name in ["a.py", "b/10.txt", "b/2.txt", "c.md"] if name in names(source, "train")]
    assert names(source, "train") == order


def test_what_is_no_source_is_refused_with_the_names_there_are(tmp_path):
    for spec in ("no-such-thing", "", str(tmp_path / "missing")):
        with pytest.raises(UserError, match="stdlib, shakespeare, classic-books"):
            open_source(spec)
    with pytest.raises(UserError, match="no readable files"):
        open_source(tmp_path)
    (tmp_path / "val.txt").write_text("x")
    with pytest.raises(UserError, match="only validation files"):
        open_source(tmp_path)
    (tmp_path / "a.doc").write_text("x")
    with pytest.raises(UserError, match=r"a\.doc.*not read"):
        open_source(tmp_path / "a.doc")
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(UserError, match="no text"):
        list(open_source(tmp_path / "empty.txt").documents("train"))


def test_a_source_is_taken_as_it_is_and_a_path_may_be_called_like_a_built_in(tmp_path, monkeypatch):
    (tmp_path / "stdlib").mkdir()
    (tmp_path / "stdlib" / "a.txt").write_text("mine")
    monkeypatch.chdir(tmp_path)
    source = open_source("./stdlib")
    assert source.documents and open_source(source) is source
    assert names(source, "train") == ["a.txt"]
    assert open_source("stdlib").size_hint() > 5_000_000


def test_the_fingerprint_follows_names_and_contents_wherever_they_lie(tmp_path):
    first, second = tmp_path / "1" / "data", tmp_path / "2" / "data"
    for folder in (first, second):
        folder.mkdir(parents=True)
        (folder / "a.txt").write_text("aaa")
        (folder / "b.txt").write_text("bbb")
    before = open_source(first).fingerprint()
    assert open_source(second).fingerprint() == before
    (second / "a.txt").write_text("aab")
    assert open_source(second).fingerprint() != before
    (second / "a.txt").write_text("aaa")
    (second / "b.txt").rename(second / "c.txt")
    assert open_source(second).fingerprint() != before


def test_the_fingerprint_of_a_large_file_sees_head_tail_size_and_time(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, "HASH_WHOLE_BYTES", 2**21)
    path = tmp_path / "a.txt"
    data = bytearray(b"x" * (2**21 + 1))
    path.write_bytes(data)
    seen = {open_source(path).fingerprint()}
    for place in (0, 2**21):
        data[place] = ord("y")
        path.write_bytes(data)
        seen.add(open_source(path).fingerprint())
    path.write_bytes(data + b"z")
    seen.add(open_source(path).fingerprint())
    assert len(seen) == 4


def test_two_readings_are_alike(tmp_path):
    for i in range(30):
        (tmp_path / f"{i}.txt").write_text(str(i))
    source = open_source(tmp_path)
    for split in SPLITS:
        assert list(source.documents(split)) == list(open_source(tmp_path).documents(split))
