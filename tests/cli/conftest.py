"""What the tests of the command share: `cli(...)` runs it in this process and returns what a user would see."""

import json
from typing import Any, NamedTuple

import pytest

from nano_llama.cli import main


class Run(NamedTuple):
    """One run of the command: its exit code and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one JSON object on stdout; fails where there is anything else."""
        return json.loads(self.out)

    @property
    def shown(self) -> str:
        return self.out + self.err


@pytest.fixture
def cli(capsys):
    def run(*args: object) -> Run:
        capsys.readouterr()  # what came before is not this run's
        code = main([str(arg) for arg in args])
        return Run(code, *capsys.readouterr())

    return run


TEXT = "the quick brown fox jumps over the lazy dog, and the dog sleeps on. " * 40
TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}me: {% endif %}"
)


def save_tiny(folder, kind="bpe", chat=False, **changes):
    """A Hugging Face folder with a tiny model of random weights and a tokenizer of its own."""
    from nano_llama.core.init import init_params
    from nano_llama.core.presets import model_preset
    from nano_llama.formats import save_hf
    from nano_llama.tokenizer import Tokenizer

    tokenizer = Tokenizer.train_char(TEXT) if kind == "char" else Tokenizer.train_bpe([TEXT], 300)
    config = model_preset("tiny", vocab_size=tokenizer.vocab_size, initializer_range=0.5, **changes)
    save_hf(folder, config, init_params(config, seed=1), tokenizer)
    if chat:
        (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


@pytest.fixture(scope="session")
def tiny_model_with_eyes(tmp_path_factory):
    """A folder as Idefics3's: a tiny LLaMA of random weights with an image encoder."""
    from nano_llama.core.init import init_params
    from nano_llama.core.presets import model_preset
    from nano_llama.core.vision.init import add_vision
    from nano_llama.core.vision.presets import encoder_preset
    from nano_llama.formats.vision_folder import save_vision_language
    from nano_llama.tokenizer import Tokenizer
    from nano_llama.tokenizer.image_token import with_image_token

    folder = tmp_path_factory.mktemp("eyes") / "m"
    tokenizer = with_image_token(Tokenizer.from_pretrained("nano_gpt"))
    text = model_preset("tiny", vocab_size=tokenizer.vocab_size - 1, max_position_embeddings=96)
    config, params = add_vision(text, init_params(text, seed=2), encoder_preset("tiny"))
    save_vision_language(folder, config, params, tokenizer)
    return folder


@pytest.fixture(scope="session")
def make_tiny():
    return save_tiny


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def tiny_char_model(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("models") / "tiny-char", kind="char")


@pytest.fixture(scope="session")
def tiny_chat_model(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("models") / "tiny-chat", chat=True)


@pytest.fixture(scope="session")
def tiny_text(tmp_path_factory):
    file = tmp_path_factory.mktemp("text") / "fox.txt"
    file.write_text(TEXT)
    return file
