"""Examples as the training loop sees them: what counts, what is asked again, and when they are other examples."""

import numpy as np
import pytest

from helpers.finetuning import chat_tokenizer, save_questions
from nano_llama.core.loss import IGNORE_INDEX
from nano_llama.data.batches import tokens_in
from nano_llama.data.sft.dataset import open_example_dataset

ANSWERS = 20 // 10  # of the last tenth, which is for validation


@pytest.fixture(scope="module")
def tokenizer():
    return chat_tokenizer()


@pytest.fixture
def dataset(tmp_path, tokenizer):
    return open_example_dataset(save_questions(tmp_path / "chats.jsonl"), tokenizer, 96)


def answer(number):
    return f"It is a {('dog', 'cat', 'bird', 'tree', 'stone')[number % 5]}" + ", no more and no less" * (number % 3)


def test_what_is_learned_is_counted(dataset, tokenizer):
    answers = [answer(number) for number in range(18)]
    assert len(dataset.train.sequences) == 18 and len(dataset.val.sequences) == ANSWERS
    assert dataset.train.num_bytes == sum(len(text.encode()) for text in answers)
    assert dataset.train.num_learned == sum(len(tokenizer.encode(text)) + 1 for text in answers)  # and the end mark
    assert dataset.train.num_tokens == sum(len(one.ids) for one in dataset.train.sequences)


@pytest.mark.parametrize("packed", [True, False])
def test_validation_counts_every_answer_once(dataset, packed):
    validation = dataset.validation(2, 96, packed)
    batches = list(validation.batches())
    assert len(batches) == validation.num_batches
    counted = sum(int(np.count_nonzero(batch[1] != IGNORE_INDEX)) for batch in batches)
    assert counted == validation.num_targets == dataset.val.num_learned
    assert validation.num_bytes == len(answer(18)) + len(answer(19))
    if packed:
        assert sum(map(tokens_in, batches)) == dataset.val.num_tokens - ANSWERS  # the last id is a target only


def test_an_epoch_shows_every_example_once(dataset):
    batches = dataset.training_batches(3, 96, 5, True)
    steps = batches.steps(1.0)
    seen = sum(tokens_in(batches.at(position)) for position in range(steps))
    rows = len(batches.rows)
    assert steps == -(-rows // 3) and batches.steps(2.0, accumulate=2) == max(1, -(-2 * rows // 6))
    if rows % 3 == 0:
        assert seen == dataset.train.num_tokens - 18


def test_prompts_are_asked_with_their_answers(dataset, tokenizer):
    found = dataset.openings(5, 96)
    assert [opening.answer for opening in found] == [answer(18), answer(19)]
    for number, opening in zip((18, 19), found, strict=True):
        messages = [{"role": "user", "content": f"{number}. What is the {('tree', 'stone')[number - 18]}?"}]
        assert opening.ids == tokenizer.encode_chat(messages), "as the model will be asked when it is served"
        assert opening.text == tokenizer.decode(opening.ids, skip_special=False)
    assert dataset.openings(1, 96) == found[:1] and dataset.openings(2, 3) == []


def test_the_fingerprint_is_of_what_is_learned(dataset, tokenizer, tmp_path):
    same = open_example_dataset(save_questions(tmp_path / "again.jsonl"), tokenizer, 96)
    fewer = open_example_dataset(save_questions(tmp_path / "fewer.jsonl", 19), tokenizer, 96)
    assert dataset.fingerprint == same.fingerprint != fewer.fingerprint
    one = dataset.train.sequences[0]
    one.learned[-1] = False
    again = open_example_dataset(tmp_path / "again.jsonl", tokenizer, 96)
    again.train.sequences[0].learned[-1] = False
    assert again.fingerprint != same.fingerprint


def test_a_text_that_is_learned_whole_is_continued_from_its_middle(tokenizer, tmp_path):
    (tmp_path / "texts.txt").write_text("It is a dog, no more and no less. " * 6)
    (tmp_path / "val.txt").write_text("It is a cat. What is the cat? It is a stone.")
    (tmp_path / "texts").mkdir()
    for name, file in (("train.txt", "texts.txt"), ("val.txt", "val.txt")):
        (tmp_path / file).rename(tmp_path / "texts" / name)
    found = open_example_dataset(tmp_path / "texts", tokenizer, 96)
    (opening,) = found.openings(1, 96)
    assert 0 < len(opening.ids) < len(found.val.sequences[0].ids) and opening.answer
