"""`eval` of a model that reads images: the shape of its answer, and what is refused."""

import pytest

pytest.importorskip("torch")


def test_accuracies(cli, tiny_model_with_eyes, tmp_path):
    pytest.importorskip("sklearn")
    done = cli("eval", "--model", tiny_model_with_eyes, "--data", "shapes-vqa", "--pictures", 24, "--json", "--quiet")
    assert done.code == 0, done.err
    assert done.json["accuracy"].keys() == done.json["control"].keys() == done.json["asked"].keys()
    assert done.json["accuracy"].keys() >= {"colour", "shape", "side"} and done.json["pictures"] == 24
    refused = cli("eval", "--model", tiny_model_with_eyes, "--data", "stdlib")
    assert refused.code == 2 and "reads images" in refused.err
    for option in (("--context", 64), ("--split", "train"), ("--beside", "xz"), ("--adapter", tmp_path)):
        refused = cli("eval", "--model", tiny_model_with_eyes, *option)
        assert refused.code == 2 and f"{option[0]} is for text" in refused.err, "not left out in silence"


def test_a_model_without_eyes(cli, tiny_model):
    refused = cli("eval", "--model", tiny_model, "--data", "shapes-vqa")
    assert refused.code == 2 and "does not read images" in refused.err
