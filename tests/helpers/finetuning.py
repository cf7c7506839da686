"""A tiny model with a chat template, and questions for it: what the tests of fine-tuning share."""

import json
from pathlib import Path

from tokenizers import Tokenizer as Library

from helpers.chat_formats import FORMATS
from nano_llama.core.config import LlamaConfig
from nano_llama.core.init import init_params
from nano_llama.formats import save_hf
from nano_llama.tokenizer import Tokenizer

WORDS = ("dog", "cat", "bird", "tree", "stone")


def chat_tokenizer() -> Tokenizer:
    texts = [f"What is the {word}? It is a {word}, no more and no less.\n" for word in WORDS] * 4
    return FORMATS["chatml"].tokenizer(Library.from_str(Tokenizer.train_bpe(texts, 300).backend.source))


def save_chat_model(folder: Path, **changes) -> Path:
    """An untrained model as a Hugging Face folder."""
    tokenizer = chat_tokenizer()
    shape = {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "intermediate_size": 48, "max_position_embeddings": 96, "tie_word_embeddings": True,
    }  # fmt: skip
    config = LlamaConfig(
        **{**shape, **changes}, vocab_size=tokenizer.vocab_size, eos_token_id=sorted(tokenizer.stop_ids)
    )
    save_hf(folder, config, init_params(config, 7), tokenizer)
    return folder


def save_questions(path: Path, count: int = 20) -> Path:
    """One conversation a line; the answers differ in length."""
    with path.open("w") as file:
        for number in range(count):
            word = WORDS[number % len(WORDS)]
            answer = f"It is a {word}" + ", no more and no less" * (number % 3)
            messages = [{"role": "user", "content": f"{number}. What is the {word}?"}]
            file.write(json.dumps({"messages": [*messages, {"role": "assistant", "content": answer}]}) + "\n")
    return path
