"""Pictures that are not meant well, and `generate --image`: each gets a clear error or the right answer.

Through a server: tests/server/test_hostile_pictures.py.
"""

import pytest

pytest.importorskip("PIL.Image")

from helpers.hostile_pictures import PICTURES, PLAIN, SHOWN
from nano_llama import LLM

QUESTION = SHOWN.questions[0]


@pytest.fixture(scope="module")
def llm():
    with LLM("nano_eyes", runner="numpy", num_threads=1) as llm:
        yield llm


@pytest.fixture
def ask(cli, llm, monkeypatch, tmp_path):
    """The command's run about these bytes, in a file that is called a PNG. The model is loaded once for all."""
    monkeypatch.setattr("nano_llama.cli.generate.load_llm", lambda *args, **options: llm)

    def run(data, *options):
        file = tmp_path / "picture.png"
        file.write_bytes(data)
        return cli(
            "generate", "nano_eyes", "--image", file, "--prompt", QUESTION.text, "--max-tokens", 8, "--temperature", 0,
            *options,
        )  # fmt: skip

    return run


@pytest.mark.parametrize("name", PICTURES)
def test_a_clear_error_or_the_right_answer(ask, name):
    data, expected = PICTURES[name]
    done = ask(data)
    if isinstance(expected, str):
        assert done.code == 2 and not done.out
        assert expected in done.err and "picture.png" in done.err and "Traceback" not in done.err
    else:
        assert done.code == 0, done.shown
        assert done.out == ask(expected).out
        assert done.out.strip() == QUESTION.answer or name not in ("cmyk", "a phone's, with another behind it")


def test_as_json(ask):
    assert ask(PLAIN, "--json", "--quiet").json["text"].strip() == QUESTION.answer
    assert "is an animation" in ask(PICTURES["animated"][0], "--json", "--quiet").json["error"]


def test_what_is_no_file(cli, ask, tmp_path):
    for path, says in ((tmp_path / "none.png", "Image not found"), (tmp_path, "is a folder, not an image")):
        done = cli("generate", "nano_eyes", "--image", path, "--prompt", QUESTION.text)
        assert done.code == 2 and says in done.err
