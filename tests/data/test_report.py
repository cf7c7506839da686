"""The report counts what a plain reading of the files counts."""

import json

import pytest

from nano_llama.data.prepare import prepare
from nano_llama.data.report import make_report


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    corpus = folder / "corpus"
    corpus.mkdir()
    records = [{"text": f"line {i} äöü " * (1 + i % 5)} for i in range(50)]
    with (corpus / "many.jsonl").open("w") as file:
        for record in [*records, records[3], records[3], records[4]]:
            file.write(json.dumps(record) + "\n")
    (corpus / "novel.txt").write_text("a very long novel " * 500)
    with (corpus / "val.jsonl").open("w") as file:
        for text in (records[3]["text"], "only here", records[7]["text"], records[7]["text"] + " almost"):
            file.write(json.dumps({"text": text}) + "\n")
    return prepare(corpus, "bpe:300", folder / "data", shard_bytes=600)


def test_numbers(dataset):
    report = make_report(dataset)
    texts = [f"line {i} äöü " * (1 + i % 5) for i in range(50)]
    train = [*texts, texts[3], texts[3], texts[4], "a very long novel " * 500]
    assert report.train.documents == 54 and report.val.documents == 4
    assert report.train.bytes == sum(len(text.encode()) for text in train)
    tokens = sum(len(dataset.tokenizer.encode(text)) + 1 for text in train)
    assert report.train.tokens == tokens
    assert report.train.bytes_per_token == pytest.approx(report.train.bytes / tokens)
    assert report.train.longest.name == "novel.txt"
    assert report.train.longest.num_bytes == 9000
    assert report.train.repeated == 3 and report.val.repeated == 0


def test_texts_in_both_splits_are_named(dataset):
    leaks = make_report(dataset).leaks
    assert leaks == [("val.jsonl:0", "many.jsonl:3"), ("val.jsonl:2", "many.jsonl:7")]


def test_for_people_and_for_programs(dataset):
    report = make_report(dataset)
    assert json.loads(json.dumps(report.to_dict()))["train"]["documents"] == 54
    text = "\n".join(report.lines())
    assert "54 documents" in text and "novel.txt" in text and "in both splits: 2" in text
    assert "val.jsonl:0 = many.jsonl:3" in text
