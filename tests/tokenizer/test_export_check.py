"""An export that changes what a tokenizer does is refused or warned about: over the parts that a tokenizer.json has."""

import json
import tempfile
import warnings

import pytest
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as Library

from nano_llama.core.errors import UserError
from nano_llama.tokenizer import Tokenizer
from nano_llama.tokenizer.backend import Backend
from nano_llama.tokenizer.gguf import from_metadata, tokenizer_to_gguf

from .conftest import CORPUS, HARD_TEXTS

TOKENS = ["<tool>", "<|im_end|>", "<|endoftext|>"]
# Not the texts of the check itself.
TEXTS = [
    *HARD_TEXTS,
    *CORPUS[:3],
    *(f"some{gap}{token}{gap}text" for token in TOKENS for gap in ("", " ", "\n", "x")),
]


def change(bpe: Tokenizer, edit) -> Tokenizer:
    library = Library.from_str(bpe.backend.source)
    edit(library)
    with tempfile.TemporaryDirectory() as folder:
        bpe.save_pretrained(folder)
        library.save(f"{folder}/tokenizer.json")
        return Tokenizer.from_pretrained(folder)


def normalizer(value):
    return lambda library: setattr(library, "normalizer", value)


def added(special=True, **flags):
    return lambda library: library.add_tokens([AddedToken("<tool>", special=special, **{"normalized": False, **flags})])


def post_processor(single):
    def edit(library):
        ids = [("<|endoftext|>", library.token_to_id("<|endoftext|>"))]
        library.post_processor = processors.TemplateProcessing(single=single, special_tokens=ids)

    return edit


EDITS = {
    "nothing": lambda library: None,
    "NFC": normalizer(normalizers.NFC()),
    "NFD": normalizer(normalizers.NFD()),
    "NFKC": normalizer(normalizers.NFKC()),
    "NFKD": normalizer(normalizers.NFKD()),
    "Lowercase": normalizer(normalizers.Lowercase()),
    "StripAccents": normalizer(normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()])),
    "Strip": normalizer(normalizers.Strip()),
    "Replace": normalizer(normalizers.Replace("fox", "dog")),
    "Prepend": normalizer(normalizers.Prepend("x")),
    "BertNormalizer": normalizer(normalizers.BertNormalizer()),
    "Nmt": normalizer(normalizers.Nmt()),
    "an empty Sequence": normalizer(normalizers.Sequence([])),
    "a sequence that does nothing here": normalizer(normalizers.Sequence([normalizers.Replace("qqqzqqq", "a")])),
    "special": added(),
    "not special": added(special=False),
    "lstrip": added(lstrip=True),
    "rstrip": added(rstrip=True),
    "both, not special": added(special=False, lstrip=True, rstrip=True),
    "single word": added(single_word=True),
    "normalized": added(special=False, normalized=True),
    "two before": post_processor("<|endoftext|> <|endoftext|> $A"),
    "one after": post_processor("$A <|endoftext|>"),
    "cleaning decoder": lambda library: setattr(
        library, "decoder", decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 1)])
    ),
}


def outcome(work):
    """-> what it gives, or "refused"; and whether it warned."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            return work(), bool(said)
        except UserError:
            return "refused", bool(said)


def everything(tokenizer):
    for text in TEXTS:
        for special in (True, False):
            ids = outcome(lambda text=text, special=special: tokenizer.encode(text, parse_special=special))[0]
            yield text, special, ids, tokenizer.decode(ids) if ids != "refused" else None


@pytest.mark.parametrize("name", EDITS)
def test_what_is_written_without_a_word_reads_back_the_same(bpe, name):
    tokenizer = change(bpe, EDITS[name])
    metadata, warned = outcome(lambda: tokenizer_to_gguf(tokenizer))
    if metadata == "refused" or warned:
        assert name not in ("nothing", "an empty Sequence", "special", "not special")
        return
    again = Tokenizer(*from_metadata(metadata))
    assert list(everything(again)) == list(everything(tokenizer))


@pytest.mark.parametrize("name", ["NFC", "NFKC", "Lowercase", "StripAccents", "Strip", "Prepend", "BertNormalizer"])
def test_a_normalizer_that_changes_ids_is_refused_by_name(bpe, name):
    with pytest.raises(UserError, match="GGUF has no normalizer") as caught:
        tokenizer_to_gguf(change(bpe, EDITS[name]))
    assert "Export to hf" in caught.value.hint


def test_a_normalizer_that_changes_no_sample_is_warned_about(bpe):
    with pytest.warns(UserWarning, match="qqqzqqq"):
        tokenizer_to_gguf(change(bpe, EDITS["a sequence that does nothing here"]))


@pytest.mark.parametrize("name", ["lstrip", "rstrip", "both, not special", "two before"])
def test_what_gguf_has_no_word_for_is_warned_about(bpe, name):
    with pytest.warns(UserWarning, match="around a text" if name == "two before" else "'<tool>'"):
        tokenizer_to_gguf(change(bpe, EDITS[name]))


@pytest.mark.parametrize("steps", [["NFKC"], ["Lowercase"], ["Strip"]])
def test_sentencepiece_with_another_normalizer_is_refused(sentencepiece_metadata, steps):
    library = Library.from_str(Tokenizer(*from_metadata(sentencepiece_metadata)).backend.source)
    before = json.loads(library.to_str())["normalizer"]["normalizers"]
    assert [step["type"] for step in before] == ["Prepend", "Replace"]
    library.normalizer = normalizers.Sequence(
        [*(getattr(normalizers, step)() for step in steps), normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    with pytest.raises(UserError, match="GGUF cannot hold"):
        tokenizer_to_gguf(Tokenizer(Backend(library)))


# -- a tokenizer that is larger than the embedding --------------------------------------------------------------------


def test_added_tokens_beyond_the_embedding_are_left_out(bpe):
    size = bpe.vocab_size
    larger = change(bpe, lambda library: library.add_special_tokens(["<pad>", "<sep>"]))
    assert larger.vocab_size == size + 2
    with pytest.warns(UserWarning, match="'<pad>', '<sep>'"):
        metadata = tokenizer_to_gguf(larger, size)
    assert len(metadata["tokenizer.ggml.tokens"]) == len(metadata["tokenizer.ggml.token_type"]) == size
    assert Tokenizer(*from_metadata(metadata)).encode(CORPUS[0]) == bpe.encode(CORPUS[0])


@pytest.mark.filterwarnings("ignore:Left out of the GGUF")
def test_a_role_beyond_the_embedding_goes_too(bpe, tmp_path):
    size = bpe.vocab_size
    change(bpe, lambda library: library.add_special_tokens(["<pad>"])).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**config, "pad_token": "<pad>"}))
    with pytest.warns(UserWarning, match=f"pad_id = {size}"):
        metadata = tokenizer_to_gguf(Tokenizer.from_pretrained(tmp_path), size)
    assert "tokenizer.ggml.padding_token_id" not in metadata


def test_a_vocabulary_beyond_the_embedding_is_refused(bpe):
    with pytest.raises(UserError, match="would have no vector"):
        tokenizer_to_gguf(bpe, bpe.vocab_size - 1)


def test_a_vocabulary_of_another_kind_of_bpe(tmp_path):
    """Marks at the ends of words, which GGUF's kinds of BPE do not have."""
    library = Library(models.BPE(end_of_word_suffix="</w>", unk_token="<unk>"))
    library.pre_tokenizer = pre_tokenizers.Whitespace()
    library.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=300, end_of_word_suffix="</w>", special_tokens=["<unk>"])
    )
    with pytest.raises(UserError, match="GGUF"):
        tokenizer_to_gguf(Tokenizer(Backend(library)))
