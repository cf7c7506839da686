"""Text <-> token ids: byte-level BPE, SentencePiece BPE, char level, any tokenizer.json, GGUF; and chat templates.

    tokenizer.py       Tokenizer, the one class to use: a codec (codec.py) and a chat template (conversation.py)
    train.py           new vocabularies: byte-level BPE, char level
    incremental.py     ids one by one -> whole characters            token_bytes.py   what one id stands for
    chat.py            messages -> text, in template_worker.py's process, within limits
    answers.py         which tokens of a conversation a model is to learn
    special_text.py quoted.py    the template's special tokens apart from those that a user typed
    files.py added_tokens.py roles.py    a Hugging Face folder: the vocabulary, and which ids are BOS, EOS ...
    gguf.py            GGUF metadata, both ways      pretokenizers.py, sentencepiece.py   names and scores
    document.py        tokenizer.json, checked as an untrusted file
    backend.py         the `tokenizers` library without its surprises

Not here: corpora and shards (data), the GGUF file itself (formats). Tests: tests/tokenizer/.
"""

from nano_llama.tokenizer.incremental import IncrementalDecoder
from nano_llama.tokenizer.tokenizer import Tokenizer

__all__ = ["IncrementalDecoder", "Tokenizer"]
