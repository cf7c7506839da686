"""What the tests of fine-tuning share: an untrained model with a chat template, questions, and a run on them."""

import pytest

from helpers.finetuning import save_chat_model, save_questions
from nano_llama.training.finetune import FinetuneSettings

HELD_OUT = "The old stone bridge crosses a river, and nobody remembers who built it or why. " * 200


@pytest.fixture(scope="session")
def chat_model(tmp_path_factory):
    return save_chat_model(tmp_path_factory.mktemp("model") / "base", hidden_size=64, intermediate_size=96)


@pytest.fixture(scope="session")
def recipe(chat_model, tmp_path_factory):
    """All weights, so that within a few steps something is learned."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "held-out.txt").write_text(HELD_OUT)
    return FinetuneSettings(
        data=str(save_questions(folder / "chats.jsonl", 40)), init_from=str(chat_model), adapter="none", lr=0.01,
        held_out=str(folder / "held-out.txt"), batch_size=2, context=96, max_steps=3, evaluations=1, samples=1,
        sample_tokens=12, device="cpu", precision="fp32", num_threads=1,
    )  # fmt: skip
