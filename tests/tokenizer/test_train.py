"""Training: the vocabulary is full, the same every time, and transformers reads what we save."""

import subprocess
import sys

import pytest

from nano_llama.core.errors import UserError
from nano_llama.tokenizer import Tokenizer

from .conftest import CORPUS, HARD_TEXTS


def test_vocabulary_is_bytes_then_merges(bpe):
    tokens = [bpe.token_bytes(number) for number in range(bpe.vocab_size)]
    assert tokens[0] == b"<|endoftext|>"
    assert sorted(tokens[1:257]) == [bytes([byte]) for byte in range(256)]
    merged = set(tokens[1:257])
    for token in tokens[257:]:
        assert any(token[:cut] in merged and token[cut:] in merged for cut in range(1, len(token))), token
        merged.add(token)


def test_the_most_frequent_pair_is_merged_first():
    tokenizer = Tokenizer.train_bpe(["xyxyxy zq xy"], 258)
    assert tokenizer.token_bytes(257) == b"xy"


def test_training_is_deterministic_across_processes_and_threads():
    code = (
        "from nano_llama.tokenizer import Tokenizer; import sys, os;"
        "print(Tokenizer.train_bpe(open(os.__file__).read().splitlines(True), 700).fingerprint)"
    )

    def train(threads: str) -> str:
        environment = {"RAYON_NUM_THREADS": threads, "PYTHONHASHSEED": threads}
        return subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, check=True
        ).stdout.decode()

    assert len(train("1")) == 65
    assert train("1") == train("4")


@pytest.mark.parametrize("size", [256, 0, -5, 2**30, 300.0, "300", True, None])
def test_impossible_sizes_are_refused(size):
    with pytest.raises(UserError, match="vocab_size"):
        Tokenizer.train_bpe(CORPUS, size)


def test_smallest_vocabulary_still_writes_everything():
    tokenizer = Tokenizer.train_bpe(["ab"], 257)
    assert tokenizer.vocab_size == 257
    assert all(tokenizer.decode(tokenizer.encode(text)) == text for text in HARD_TEXTS)


@pytest.mark.parametrize("texts", [[], [""], iter(())])
def test_no_text_is_refused(texts):
    for train in (lambda: Tokenizer.train_bpe(texts, 300), lambda: Tokenizer.train_char(texts)):
        with pytest.raises(UserError, match="No text"):
            train()


def test_what_is_no_text_is_refused():
    for wrong, cause in (([3], "int"), (["a\ud800"], "U\\+D800"), ([b"a"], "bytes")):
        with pytest.raises(UserError, match=cause):
            Tokenizer.train_bpe(wrong, 300)
        with pytest.raises(UserError, match=cause):
            Tokenizer.train_char(wrong)
    with pytest.raises(UserError, match=r"train_bpe takes several texts"):
        Tokenizer.train_bpe("one text", 300)


def test_an_error_of_the_texts_own_comes_through():
    def texts():
        yield "abc"
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        Tokenizer.train_bpe(texts(), 300)


def test_progress_counts_texts_and_characters():
    seen = []
    Tokenizer.train_bpe(["ab", "cde"], 300, progress=lambda *counts: seen.append(counts))
    assert seen == [(1, 2), (2, 5)]


@pytest.mark.parametrize("kind", ["bpe", "char"])
@pytest.mark.parametrize("with_config", [False, True])
def test_transformers_reads_what_we_save(request, tmp_path, kind, with_config):
    """Alone, and in a LLaMA's folder, where a wrong guess at the tokenizer's class would change the ids."""
    transformers = pytest.importorskip("transformers")
    tokenizer = request.getfixturevalue(kind)
    if with_config:
        (tmp_path / "config.json").write_text('{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}')
    tokenizer.save_pretrained(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    texts = CORPUS[:3] + (HARD_TEXTS if kind == "bpe" else ["\n", "  \n\n ", "a b", ""])
    for text in texts:
        ids = tokenizer.encode(text)
        assert theirs.encode(text, split_special_tokens=True) == ids
        assert theirs.decode(ids) == text == tokenizer.decode(ids)
    assert len(theirs) == tokenizer.vocab_size
    assert theirs.eos_token_id == tokenizer.eos_id
    again = Tokenizer.from_pretrained(tmp_path)
    assert (again.fingerprint, again.kind, again.roles) == (tokenizer.fingerprint, kind, tokenizer.roles)


def test_transformers_refuses_an_unknown_character_too(char, tmp_path):
    transformers = pytest.importorskip("transformers")
    char.save_pretrained(tmp_path)
    with pytest.raises(Exception, match="UNK"):
        transformers.AutoTokenizer.from_pretrained(tmp_path).encode("€")
