"""Text <-> token ids: byte-level BPE, SentencePiece BPE, char level, any tokenizer.json, GGUF; and chat templates.

    tokenizer.py       Tokenizer, the one class to use: a codec (codec.py) and a chat template (conversation.py)
    train.py           new vocabularies: byte-level BPE, char level
    incremental.py     ids one by one -> whole characters            token_bytes.py   what one id stands for
    chat.py            messages -> text, in template_worker.py's process, within limits
    special_text.py    the template's special tokens, and those that a user typed
    files.py roles.py  a Hugging Face folder: the vocabulary, and which ids play a part
    gguf.py            GGUF metadata, both ways      pretokenizers.py, sentencepiece.py   what it says by name and score
    document.py        tokenizer.json, checked as a stranger's file
    backend.py         the `tokenizers` library with its sharp edges taken off

Not here: corpora and shards (data), the GGUF file itself (formats). Tests: tests/tokenizer/.
"""

from nano_llama.tokenizer.incremental import IncrementalDecoder
from nano_llama.tokenizer.tokenizer import Tokenizer

__all__ = ["IncrementalDecoder", "Tokenizer"]
