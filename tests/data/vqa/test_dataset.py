"""Pictures as a run's data: the counts of the validation pictures, and a fingerprint of all that decides batches."""

import numpy as np
import pytest

from nano_llama.core.loss import IGNORE_INDEX
from nano_llama.data.vqa.dataset import NUM_VALIDATION, picture_dataset
from nano_llama.tokenizer import Tokenizer
from nano_llama.tokenizer.image_token import with_image_token


@pytest.fixture(scope="module")
def tokenizer():
    return with_image_token(Tokenizer.from_pretrained("nano_gpt"))


def test_validation_counts_what_its_batches_hold(tokenizer):
    dataset = picture_dataset(tokenizer, 4, tasks=("shape",), single_first=0, seed=0)
    validation = dataset.validation(100, 96, False)
    batches = list(validation.batches())
    assert len(batches) == validation.num_batches and sum(len(batch[3]) for batch in batches) == NUM_VALIDATION
    counted = sum(np.count_nonzero(targets != IGNORE_INDEX) for _, targets, *_ in batches)
    assert counted == validation.num_targets == dataset.val.num_learned
    assert sum(np.count_nonzero(documents >= 0) for _, _, documents, _ in batches) == dataset.val.num_tokens
    assert dataset.train.num_learned / dataset.train.num_bytes == pytest.approx(counted / validation.num_bytes)


def test_the_fingerprint(tokenizer):
    usual = {"tasks": ("shape",), "single_first": 0, "seed": 0}
    seen = {picture_dataset(tokenizer, 4, **usual).fingerprint, picture_dataset(tokenizer, 16, **usual).fingerprint}
    for change in ({"tasks": ("count",)}, {"single_first": 1}, {"seed": 1}):
        seen.add(picture_dataset(tokenizer, 4, **usual | change).fingerprint)
    assert len(seen) == 5
    assert picture_dataset(tokenizer, 4, **usual).fingerprint in seen
