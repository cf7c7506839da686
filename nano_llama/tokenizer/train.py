"""New tokenizers from text: one token per character, or byte-level BPE.

Char level (nanoGPT's first lesson): the vocabulary is the sorted set of characters, and nothing else. It is saved as a
WordLevel model over single characters, so any program that reads a tokenizer.json can use it.

Byte-level BPE: start from the 256 bytes, and merge the most frequent neighbours within words until the vocabulary is
full (Sennrich et al. 2016, over bytes as in GPT-2). Every text can be encoded in bytes, so no text is ever refused.
Text is split as for SmolLM2: GPT-2's words, and each digit by itself. The same texts give the same vocabulary.

Tests: tests/tokenizer/test_train.py.
"""

from collections.abc import Callable, Iterable, Iterator

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from nano_llama.core.errors import UserError
from nano_llama.tokenizer.backend import Backend, first_surrogate, not_text, refuse_single, rust_errors
from nano_llama.tokenizer.pretokenizers import SMOLLM

END_OF_TEXT = "<|endoftext|>"
SMALLEST_VOCAB = 257  # the bytes, and <|endoftext|>
LARGEST_VOCAB = 2**20

Progress = Callable[[int, int], None]


def bpe_backend(texts: Iterable[str], vocab_size: int, progress: Progress | None = None) -> Backend:
    """Train byte-level BPE. progress(texts, characters) is called as texts are read.

    Raises UserError for an impossible vocabulary size, and for texts that are not strings or empty.
    """
    if type(vocab_size) is not int or not SMALLEST_VOCAB <= vocab_size <= LARGEST_VOCAB:
        raise UserError(
            f"vocab_size = {vocab_size!r:.40} is not possible for byte-level BPE:"
            f" {SMALLEST_VOCAB} (256 bytes and {END_OF_TEXT}) to {LARGEST_VOCAB:,} are.",
            hint="A few thousand suit a small model: --tokenizer bpe:4096.",
        )
    library = tokenizers.Tokenizer(models.BPE())
    library.pre_tokenizer = SMOLLM.build()
    library.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    counted = _Counted(texts, progress)
    with rust_errors("Training the tokenizer"):
        library.train_from_iterator(iter(counted), trainer)
    if counted.characters == 0:
        raise UserError("No text to train a tokenizer on: it is empty.")
    return Backend(library)


def char_backend(text: str | Iterable[str]) -> Backend:
    """One token per distinct character, ids in the order of code points."""
    characters: set[str] = set()
    for part in [text] if isinstance(text, str) else text:
        if not isinstance(part, str):
            raise not_text(part)
        characters.update(part)
    if not characters:
        raise UserError("No text to train a tokenizer on: it is empty.")
    if first_surrogate("".join(characters)) is not None:
        raise not_text("".join(sorted(characters)))
    # The unknown token is not in the vocabulary: a character that is not there either is an error, in any program.
    library = tokenizers.Tokenizer(
        models.WordLevel({c: i for i, c in enumerate(sorted(characters))}, unk_token="<unk>")
    )
    library.pre_tokenizer = pre_tokenizers.Split("", behavior="isolated")
    library.decoder = decoders.Fuse()
    return Backend(library)


class _Counted:
    """The texts one by one, checked and counted on their way to the trainer."""

    def __init__(self, texts: Iterable[str], progress: Progress | None):
        refuse_single(texts, "train_bpe")
        self.texts, self.progress = texts, progress
        self.count = self.characters = 0

    def __iter__(self) -> Iterator[str]:
        for text in self.texts:
            if not isinstance(text, str) or first_surrogate(text) is not None:
                raise not_text(text)
            self.count += 1
            self.characters += len(text)
            if self.progress:
                self.progress(self.count, self.characters)
            yield text
