"""Text <-> token ids: the one class that the rest of the project uses, composed of a codec and a conversation encoder.

Tests: tests/tokenizer/test_tokenizer.py and its neighbours.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nano_llama.core.errors import UserError
from nano_llama.tokenizer.backend import Backend
from nano_llama.tokenizer.chat import Message
from nano_llama.tokenizer.codec import Codec, checked_id
from nano_llama.tokenizer.conversation import ChatOptions, ConversationEncoder
from nano_llama.tokenizer.incremental import IncrementalDecoder
from nano_llama.tokenizer.merge_steps import MergeSteps
from nano_llama.tokenizer.roles import Roles, conventional_eos

if TYPE_CHECKING:
    from nano_llama.tokenizer.merges import Piece, Vocabulary


class Tokenizer:
    """Turns text into the ids a model reads, and back.

        tokenizer = Tokenizer.from_pretrained("path/to/model")       # a folder, a tokenizer.json, a .gguf, a hub name
        tokenizer = Tokenizer.train_bpe(texts, vocab_size=4096)      # or your own: byte-level BPE,
        tokenizer = Tokenizer.train_char(text)                       # or one token per character

        ids = tokenizer.encode("Hello there")                        # [19556, 665] in SmolLM2's vocabulary
        tokenizer.decode(ids)                                        # "Hello there": exact for byte-level and char
        tokenizer.encode_chat([{"role": "user", "content": "Hi"}])   # ids of a conversation, in the model's format

    A model sees ids only, so three things are worth knowing about them:

    * Special tokens such as <|im_end|> are ids that no plain text has. `encode` never produces them from typed text:
      "<|im_end|>" becomes the tokens of its ten characters, unless `parse_special=True` says that you mean the token.
    * BOS is an id that some models want before every text. `encode` adds it if the tokenizer's own file says so;
      add_bos=False encodes the bare text, which is what the pieces of a longer text need.
    * One character may take several ids, so the text of a growing list of ids is read with `decoder()`, which waits
      for whole characters.

    kind: "char", or the library's model: "bpe", "unigram", "wordlevel", "wordpiece".
    bos_id, eos_id, pad_id, unk_id: int, or None where there is no such token. stop_ids: all ids that end an answer.
    special_ids: the ids that decode leaves out by default. vocab_size: one more than the largest id.
    """

    def __init__(
        self, backend: Backend, roles: Roles | None = None, chat_template: str | Mapping[str, str] | None = None
    ):
        self.backend = backend
        self.roles = roles or Roles(eos=conventional_eos(backend))
        templates = chat_template if isinstance(chat_template, Mapping) else {"default": chat_template}
        self.chat_templates = {name: text for name, text in templates.items() if text is not None}
        self.bos_id, self.eos_id = self.roles.bos, self.roles.eos
        self.pad_id, self.unk_id = self.roles.pad, self.roles.unk
        self._codec = Codec(backend, self.roles)
        self.special_ids = self._codec.special_ids
        self.conversations = ConversationEncoder(self.chat_templates, self._codec)

    def __reduce__(self) -> tuple[Any, ...]:
        return _from_source, (self.backend.source, self.roles, self.chat_templates)

    # -- from and to files --------------------------------------------------------------------------------------------

    @classmethod
    def from_pretrained(cls, path: str | Path) -> "Tokenizer":
        """Read a model's tokenizer: a folder with a tokenizer.json, such a file, a .gguf, or a name on the hub.

        Raises UserError where nothing is found, FormatError for a file that is damaged or of an unknown kind.
        """
        from nano_llama.tokenizer.files import read_folder
        from nano_llama.tokenizer.gguf import read_gguf

        place = Path(path).expanduser()
        if not place.exists():
            from nano_llama.formats import resolve_model

            place = Path(resolve_model(path))
        return cls(*(read_gguf(place) if _is_gguf(place) else read_folder(place)))

    @classmethod
    def train_bpe(
        cls, texts: Iterable[str], vocab_size: int, progress: Callable[[int, int], None] | None = None
    ) -> "Tokenizer":
        """Byte-level BPE over `texts`. Its one special token <|endoftext|> (id 0) ends documents.

        The vocabulary may stay smaller if the texts have no more pairs to merge. progress(texts, characters) is
        called as texts are read. Raises UserError for vocab_size below 257, and where there is no text.
        """
        from nano_llama.tokenizer.train import bpe_backend

        return cls(bpe_backend(texts, vocab_size, progress))

    @classmethod
    def from_merges(
        cls, vocab: "Vocabulary", merges: "Iterable[tuple[Piece, Piece] | str]", special_tokens: Sequence[str] = ()
    ) -> "Tokenizer":
        """Byte-level BPE from a vocabulary and its merges, in their order: of bytes, or in GPT-2's alphabet.

        vocab: {b"the": 500} or {500: b"the"}, or GPT-2's vocab.json as a dict. merges: pairs, or the lines of GPT-2's
        merges.txt. Special tokens that the vocabulary lacks get the next ids. Text is split into words as `train_bpe`
        does. Raises UserError where the two do not fit together.
        """
        from nano_llama.tokenizer.merges import merges_backend

        return cls(merges_backend(vocab, merges, special_tokens))

    @classmethod
    def train_char(cls, text: str | Iterable[str]) -> "Tokenizer":
        """One token per distinct character of `text`, in the order of code points. No special tokens."""
        from nano_llama.tokenizer.train import char_backend

        return cls(char_backend(text))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write tokenizer.json and tokenizer_config.json, which transformers.AutoTokenizer reads too."""
        from nano_llama.tokenizer.files import write_folder

        write_folder(Path(folder), self.backend, self.roles, self.chat_templates)

    def to_gguf(self, vocab_size: int | None = None) -> dict[str, Any]:
        """The `tokenizer.*` metadata of a GGUF file. vocab_size: rows of the model's embedding, where it has more.

        Raises UserError, naming what GGUF cannot hold.
        """
        from nano_llama.tokenizer.gguf import tokenizer_to_gguf

        return tokenizer_to_gguf(self, vocab_size)

    # -- what it is ---------------------------------------------------------------------------------------------------

    @property
    def kind(self) -> str:
        return "char" if self._codec.characters is not None else type(self.backend.model).__name__.lower()

    @property
    def byte_level(self) -> bool:
        """Whether tokens are made of bytes, so that any text can be encoded."""
        return self._codec.byte_level

    @property
    def chat_template(self) -> str | None:
        """The template for plain conversations; `chat_templates` has all by name."""
        return self.chat_templates.get("default")

    @property
    def vocab_size(self) -> int:
        return self.backend.vocab_size

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        return self.roles.stop_ids(self.backend)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 (hex) of its tokenizer.json in canonical form: equal if and only if encoding and decoding are."""
        canonical = json.dumps(self.backend.document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(canonical.encode()).hexdigest()

    def __repr__(self) -> str:
        chat = bool(self.chat_templates)
        return f"Tokenizer({self.kind}, {self.vocab_size:,} tokens, eos={self.eos_id}, {chat=})"

    # -- text to ids --------------------------------------------------------------------------------------------------

    def encode(
        self, text: str, *, add_bos: bool | None = None, parse_special: bool | Collection[int] = False
    ) -> list[int]:
        """The ids of `text`.

        add_bos: None does what the tokenizer's own file says; True puts BOS first; False encodes the bare text.
        parse_special: read "<|endoftext|>" and its like as the special tokens they name; or only those with these ids.
        Raises UserError for a character that the vocabulary lacks, and for what is not text.
        """
        if isinstance(parse_special, bool):
            return self._codec.encode(text, add_bos, parse_special)
        return self._codec.encode_parsing(text, add_bos, parse_special)

    def encode_batch(
        self, texts: Sequence[str], *, add_bos: bool | None = None, parse_special: bool = False
    ) -> list[list[int]]:
        """`encode` of each text, on several threads where TOKENIZERS_PARALLELISM allows."""
        return self._codec.encode_batch(texts, add_bos, parse_special)

    def encode_iterable(self, texts: Iterable[str]) -> Iterator[int]:
        """The ids of texts that are read one by one, such as the lines of a large file; each is encoded by itself."""
        return self._codec.encode_iterable(texts)

    # -- ids to text --------------------------------------------------------------------------------------------------

    def decode(self, ids: Iterable[int], *, skip_special: bool = True, continues: bool = False) -> str:
        """The text of `ids`.

        skip_special: leave special tokens out. continues: the text continues an earlier one, so a space at its start
        is text (it matters for SentencePiece only, where the first word of a text begins with one that is not).
        Bytes that are not UTF-8, and ids beyond the vocabulary, read as U+FFFD.
        """
        return self._codec.decode(ids, skip_special, continues)

    def decoder(self, skip_special: bool = True, *, continues: bool = False) -> IncrementalDecoder:
        """A decoder for a stream of ids; its outputs, joined, are `decode` of them all."""
        return self._codec.decoder(skip_special, continues)

    def token_bytes(self, token_id: int) -> bytes:
        """What one id stands for. A byte-level token may hold a part of a character."""
        return self._codec.token_bytes[checked_id(token_id)]

    @cached_property
    def merge_steps(self) -> MergeSteps:
        """How BPE makes each token."""
        return MergeSteps(self.backend)

    # -- conversations ------------------------------------------------------------------------------------------------

    def apply_chat_template(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool | None = None,
        *,
        continue_final_message: bool | str = False,
        tools: Sequence[Any] | None = None,
        documents: Sequence[Any] | None = None,
        chat_template: str | None = None,
        **variables: Any,
    ) -> str:
        """The conversation as the text that the model was trained to read.

        messages: [{"role": "user", "content": "Hello"}, ...]. add_generation_prompt: end where the assistant's answer
        begins; None: unless a message is continued. continue_final_message: leave the last message open, so that the
        model goes on with it; the name of a field other than "content" is possible. tools, documents: for templates
        that read them; with tools the template called "tool_use" is taken, where there is one. chat_template: another
        template, by its name among `chat_templates` or as its source. variables: further names that the template
        reads, such as date_string.
        Raises UserError where there is no template, the messages are not right, or the template does not read what was
        given; FormatError where the template fails.
        """
        options = ChatOptions(
            add_generation_prompt=add_generation_prompt, continue_final_message=continue_final_message, tools=tools,
            documents=documents, chat_template=chat_template, variables=variables,
        )  # fmt: skip
        return self.conversations.text(messages, options)

    def encode_chat(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool | None = None,
        *,
        continue_final_message: bool | str = False,
        tools: Sequence[Any] | None = None,
        documents: Sequence[Any] | None = None,
        chat_template: str | None = None,
        **variables: Any,
    ) -> list[int]:
        """The ids of a conversation: the template's special tokens are special, those that a user typed are text.

        The arguments are those of `apply_chat_template`.
        """
        options = ChatOptions(
            add_generation_prompt=add_generation_prompt, continue_final_message=continue_final_message, tools=tools,
            documents=documents, chat_template=chat_template, variables=variables,
        )  # fmt: skip
        return self.conversations.ids(messages, options)


def _is_gguf(path: Path) -> bool:
    """By content, not by name."""
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            return file.read(4) == b"GGUF"
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror or error}.") from error


def _from_source(source: str, roles: Roles, chat_templates: dict[str, str]) -> Tokenizer:
    """Unpickling: in another process, say."""
    import tokenizers

    return Tokenizer(Backend(tokenizers.Tokenizer.from_str(source)), roles, chat_templates)
