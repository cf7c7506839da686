"""File names of data sets as they are published, and names that only look like them."""

from pathlib import PurePosixPath

import pytest

from nano_llama.data.split_names import assign, is_card

# layout: file -> what it is: t(rain), v(alidation), x (test), - (no text)
LAYOUTS = {
    "hub, parquet": {
        "README.md": "-", "data/train-00000-of-00002.parquet": "t", "data/train-00001-of-00002.parquet": "t",
        "data/validation-00000-of-00001.parquet": "v", "data/test-00000-of-00001.parquet": "x",
    },
    "hub, with hashes": {
        "data/train-00000-of-00001-ab12cd34ef567890.parquet": "t",
        "data/validation-00000-of-00001-de0ffe00de0ffe00.parquet": "v",
    },
    "converted by the hub": {
        "default/train/0000.parquet": "t", "default/validation/0000.parquet": "v", "default/test/0000.parquet": "x",
    },
    "two configurations": {
        "a/train-00000-of-00001.parquet": "t", "b/train-00000-of-00001.parquet": "t",
        "a/validation-00000-of-00001.parquet": "v", "b/test-00000-of-00001.parquet": "x",
    },
    "tinystories": {
        "TinyStories-train.txt": "t", "TinyStories-valid.txt": "v", "TinyStoriesV2-GPT4-train.txt": "t",
        "TinyStoriesV2-GPT4-valid.txt": "v", "README.md": "-",
    },
    "wikitext": {"wiki.train.raw.txt": "t", "wiki.valid.raw.txt": "v", "wiki.test.raw.txt": "x"},
    "penn treebank": {"ptb.train.txt": "t", "ptb.valid.txt": "v", "ptb.test.txt": "x"},
    "by language": {"en.train.txt": "t", "en.dev.txt": "v", "de.train.txt.gz": "t", "de.test.txt.gz": "x"},
    "c4": {"en/c4-train.00000-of-01024.jsonl.gz": "t", "en/c4-validation.00000-of-00008.jsonl.gz": "v"},
    "pile": {"train/00.jsonl.zst": "t", "train/01.jsonl.zst": "t", "val.jsonl.zst": "v", "test.jsonl.zst": "x"},
    "slimpajama": {
        "train/chunk1/example_train_0.jsonl.zst": "t", "validation/chunk1/example_holdout_1.jsonl.zst": "v",
        "test/chunk1/example_holdout_2.jsonl.zst": "x",
    },
    "ultrachat": {
        "data/train_sft-00000-of-00003.parquet": "t", "data/test_sft-00000-of-00001.parquet": "x",
        "data/train_gen-00000-of-00003.parquet": "t", "data/test_gen-00000-of-00001.parquet": "x",
    },
    "train, dev, test": {"train.jsonl": "t", "dev.jsonl": "v", "test.jsonl": "x", "LICENSE.txt": "-"},
    "train and eval": {"Train.jsonl": "t", "EVAL.jsonl": "x", "Validation.JSONL": "v"},
    "training and testing": {"training.txt": "t", "testing.txt": "x"},
    "numbered": {"train1.txt": "t", "train2.txt": "t", "valid1.txt": "v", "test_2.txt": "x"},
    "a script beside": {
        "train.jsonl": "t", "val.jsonl": "v", "load.py": "-", "docs/usage.md": "-", "requirements.txt": "-",
        "LICENSE": None, "NOTICE.md": "-", "README_zh.md": "-",
    },
    "more text beside": {"train.txt": "t", "more.txt": "t", "val.txt": "v"},
    "only validation is named": {"a.txt": "t", "b.md": "t", "c.py": "t", "val.txt": "v"},
    "validation, in full": {"a.txt": "t", "validation.jsonl": "v"},
    "one text and its test": {"corpus.txt": "t", "corpus_test.txt": "x", "corpus.val.txt": "v"},
    "a test beside plain names": {"a.txt": "t", "b.txt": "t", "test.txt": "x"},
    "lm1b": {"news.train.txt": "t", "news.heldout.txt": "v"},
    # and names that hold such a word by chance
    "novels": {
        "the-test-of-time.txt": "t", "the-last-train.txt": "t", "valid-reasons.txt": "t", "dev-diary.txt": "t",
        "license-to-kill.txt": "t", "test-pilots-and-their-planes.md": "t",
    },
    "a program": {
        "train.py": "t", "test.py": "t", "model.py": "t", "eval.py": "t", "tests/test_model.py": "t", "dev/run.py": "t",
        "README.md": "-", "LICENSE.md": "-",
    },
    "a manual": {"dev.md": "t", "test.md": "t", "train.md": "t", "eval/index.md": "t", "guide/valid.md": "t"},
    "code in splits": {"train/a.py": "t", "valid/b.py": "v", "test/c.py": "x"},
    "validate is another word": {"a.txt": "t", "validate.txt": "t", "latest.txt": "t", "contest.txt": "t"},
    "nothing but cards": {"a/README.md": "t", "b/README.md": "t"},
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout(layout):
    files = {PurePosixPath(name): what for name, what in LAYOUTS[layout].items() if what}
    found = assign(list(files))
    parts = {"t": found.train, "v": found.val, "x": found.test, "-": found.no_text}
    for what, wanted in parts.items():
        assert sorted(map(str, wanted)) == sorted(str(file) for file, part in files.items() if part == what), what


@pytest.mark.parametrize("name", ["README.md", "readme.txt", "sub/LICENSE-MIT.txt", "COPYING.txt.gz", "CITATION.md"])
def test_cards(name):
    assert is_card(PurePosixPath(name))


@pytest.mark.parametrize(
    "name", ["README.jsonl", "readme.parquet", "license.py", "my-license.txt", "2024.txt", "_.txt"]
)
def test_no_cards(name):
    assert not is_card(PurePosixPath(name))
