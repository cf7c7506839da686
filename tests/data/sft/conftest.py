"""A small tokenizer with a chat template, and files of examples."""

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer as Library

from helpers.chat_formats import FORMATS
from nano_llama.tokenizer import Tokenizer

TEXTS = ["What is the dog? The lazy dog, it's 42.\n", "naïve café 🙂 日本\n\nYes: no: text, more text.\n"] * 4


@pytest.fixture(scope="session")
def chatml() -> Tokenizer:
    library = Library.from_str(Tokenizer.train_bpe(TEXTS, 300).backend.source)
    return FORMATS["chatml"].tokenizer(library)


@pytest.fixture
def jsonl(tmp_path):
    """(name, records or lines of text) -> the path of a file with them."""

    def write(name: str, records) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
        path.write_text("".join(line + "\n" for line in lines))
        return path

    return write


@pytest.fixture
def asked():
    """(question, answer, ...) -> messages."""
    return lambda *texts: [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]
