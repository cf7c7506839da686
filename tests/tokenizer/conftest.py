"""Small tokenizers of every kind, made here, and texts that are hard on them."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors, trainers

from nano_llama.tokenizer import Tokenizer
from nano_llama.tokenizer.pretokenizers import LLAMA3

CORPUS = [
    "The quick brown fox jumps over the lazy dog. It's the dog's 1234567 problem, they'll say; we've seen 42.\n",
    "def area(width, height):\n    return width * height  # not volume\n\n\nclass Box:\n\tpass\r\n",
    "Καλημέρα κόσμε, 日本語のテキスト, здравствуй мир, naïve café, 🙂👍🏽 and more of the same text, text, text.\n",
] * 4

HARD_TEXTS = [
    "",
    " ",
    "   ",
    "\n",
    "\r\n \n\r\r\t",
    "a",
    " a",
    "  a  b   c    ",
    "Hello, world! It's 2024; 1234567890 and   42\n\n  indented",
    "x\n    y\n\tz\n",
    "naïve café ﬁne Ǆ ß ẞ İ ı",
    "e\u0301 \u00e9 \u0301\u0301",
    "日本語テキスト한국어ไทยहिन्दी",
    "🙂👩‍👩‍👧‍👦🏳️‍🌈👍🏽\U0001f1eb\U0001f1f7",
    "\x00\x01\x1f\x7f\x80\x9f\u00a0\u200b\ufeff\u2028\u2029\u3000",
    "\ue000\uf8ff\U0010ffff\ufffd\ufffe",
    "<|im_start|>system<|im_end|><|endoftext|></s><s>",
    "½ Ⅷ ٣ ௧ ²",
    "'s 'LL 'Ve don't DON'T",
    "▁ ▁▁ <0x0A> <0xZZ>",
    "a" * 300,
    " " * 97,
]

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] }}"
    "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.fixture(scope="session")
def bpe() -> Tokenizer:
    return Tokenizer.train_bpe(CORPUS, 420)


@pytest.fixture(scope="session")
def char() -> Tokenizer:
    return Tokenizer.train_char(CORPUS)


@pytest.fixture(scope="session")
def llama3_folder(tmp_path_factory) -> Path:
    """A folder as Llama 3's: byte-level BPE, ignore_merges, BOS by the post-processor, a template that prints it."""
    folder = tmp_path_factory.mktemp("llama3")
    library = tokenizers.Tokenizer(models.BPE(ignore_merges=True))
    library.pre_tokenizer = LLAMA3.build()
    library.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    library.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    )
    names = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    library.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    bos = (names[0], library.token_to_id(names[0]))
    library.post_processor = processors.TemplateProcessing(single=f"{names[0]} $A", special_tokens=[bos])
    library.save(str(folder / "tokenizer.json"))
    template = (
        "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' }}"
        "{{ m.content | trim }}<|eot_id|>{% endfor %}"
        "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
    )
    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": template}
    config |= {"bos_token": names[0], "eos_token": {"content": names[4], "__type": "AddedToken"}}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    ids = [library.token_to_id(names[1]), library.token_to_id(names[4])]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ids}))
    return folder


@pytest.fixture(scope="session")
def sentencepiece_model():
    """A SentencePiece BPE with byte fallback, as Llama 2's, trained by the library itself."""
    library = pytest.importorskip("sentencepiece")
    written = io.BytesIO()
    library.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS + ["aaaa aaa aa    bbbb  cc"] * 20),
        model_writer=written,
        model_type="bpe",
        vocab_size=520,
        byte_fallback=True,
        character_coverage=0.98,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        split_digits=True,
        max_sentence_length=100_000,
        hard_vocab_limit=False,
        num_threads=1,
        minloglevel=2,
    )
    return library.SentencePieceProcessor(model_proto=written.getvalue())


@pytest.fixture(scope="session")
def sentencepiece_metadata(sentencepiece_model) -> dict[str, Any]:
    """The same as a GGUF file would hold it."""
    model = sentencepiece_model
    ids = range(model.vocab_size())

    def kind(number: int) -> int:
        if model.is_unknown(number):
            return 2
        return 3 if model.is_control(number) else 6 if model.is_byte(number) else 1

    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [model.id_to_piece(number) for number in ids],
        "tokenizer.ggml.scores": [model.get_score(number) for number in ids],
        "tokenizer.ggml.token_type": [kind(number) for number in ids],
        "tokenizer.ggml.bos_token_id": model.bos_id(),
        "tokenizer.ggml.eos_token_id": model.eos_id(),
        "tokenizer.ggml.unknown_token_id": model.unk_id(),
    }
