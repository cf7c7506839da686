"""A small text gets characters, a small model and small steps; flags win, and a large text keeps the defaults."""

import pytest

from nano_llama.training.settings import TrainSettings
from nano_llama.training.small_text import SMALL, settings_for, suited

LETTERS = "the quick brown fox jumps over the lazy dog. "


def text(tmp_path, size, unit=LETTERS):
    path = tmp_path / "my.txt"
    path.write_text((unit * (size // len(unit.encode()) + 1))[:size])
    return str(path)


@pytest.mark.parametrize(
    ("size", "least_steps"), [(2_000, 7), (50_000, 40), (1_000_000, 800)]
)  # of one pass over 90% of it
def test_a_step_reads_a_small_part_of_a_small_text(tmp_path, size, least_steps):
    path = text(tmp_path, size)
    given, reason = suited({"data": path})
    settings = TrainSettings(**given)
    assert (settings.tokenizer, settings.model) == ("char", "char")
    assert 0.9 * size / settings.tokens_per_step > least_steps
    assert settings.context < 0.1 * size  # or there would be no window of validation
    assert "28 different characters" in reason and f"--batch-size {settings.batch_size}" in reason


def test_what_is_given_is_never_changed(tmp_path):
    path = text(tmp_path, 2_000)
    given = {"data": path, "tokenizer": "bpe:300", "batch_size": 2, "max_steps": 10, "hidden_size": 64}
    settings, reason = suited(given)
    assert settings == {**given, "context": 32} and reason.endswith(": --context 32")
    assert suited(settings) == (settings, "")


def test_an_alphabet_of_thousands_gets_bytes_and_merges(tmp_path):
    path = text(tmp_path, 900_000, unit="".join(map(chr, range(0x4E00, 0x5200))))
    settings, _ = suited({"data": path})
    assert settings["tokenizer"].startswith("bpe:")
    assert settings_for(3_000, 900)["tokenizer"] == "bpe:512"


def test_large_texts_names_models_and_missing_files_are_left_alone(tmp_path):
    large = {"data": text(tmp_path, SMALL)}
    assert suited(large) == (large, "")
    tuned = {"data": text(tmp_path, 100), "init_from": "nano_gpt"}
    assert suited(tuned) == (tuned, "")
    for data in ("stdlib", "shapes-vqa", "no-such-file.txt", None):
        assert suited({"data": data}) == ({"data": data}, "")
