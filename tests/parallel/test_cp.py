"""Context parallelism: attention, forward and backward, against one process; naive form. Steps: test_training.py."""

import pytest

from helpers.parallel import cp_cases
from nano_llama.core.config import LlamaConfig
from nano_llama.core.errors import UserError
from nano_llama.vol2_torch.parallel.cp import check_context_parallel

pytestmark = pytest.mark.parallel
EXCHANGES = ["ring", "gather", "ulysses"]


def worst(answers):
    """{name: largest difference over the ranks}, of those that are above none."""
    return {name: max(answer[name] for answer in answers) for name in answers[0]}


@pytest.mark.parametrize("exchange", [*EXCHANGES, "naive"])
@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("G", [4, 2, 1])
def test_attention_and_its_gradients_are_those_of_one_process(ranks, exchange, size, G):
    found = worst(ranks(size).run(cp_cases.attention, exchange=exchange, G=G))
    assert all(difference < 1e-6 for difference in found.values()), found


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_a_length_that_ranks_do_not_divide(ranks, exchange):
    found = worst(ranks(4).run(cp_cases.model_gradients, exchange=exchange, length=21))
    assert all(difference < 1e-10 for difference in found.values()), found


@pytest.mark.parametrize("checkpointing", ["selective", "full"])
def test_activation_checkpointing_sends_again_and_changes_nothing(ranks, checkpointing):
    found = worst(ranks(2).run(cp_cases.model_gradients, exchange="ring", checkpointing=checkpointing))
    assert all(difference < 1e-10 for difference in found.values()), found


def test_what_is_not_divided_is_refused_by_name(ranks):
    assert ranks(2).run(cp_cases.refusals) == ["2", "2"]


def test_generation_within_each_rank(ranks):
    assert ranks(2).run(cp_cases.whole) == [True, True]


def test_shapes_that_cannot_be_shared():
    shape = dict(vocab_size=65, hidden_size=24, intermediate_size=32, num_hidden_layers=1, max_position_embeddings=64)
    config = LlamaConfig(**shape, num_attention_heads=6, num_key_value_heads=2)
    check_context_parallel(config, 4, "ring")
    with pytest.raises(UserError, match="6 query heads are not divided by 4 ranks"):
        check_context_parallel(config, 4, "ulysses")
    dynamic = LlamaConfig(
        **shape, num_attention_heads=6, num_key_value_heads=2, rope_scaling={"rope_type": "dynamic", "factor": 2.0}
    )
    check_context_parallel(dynamic, 2, "ring", context=64)
    with pytest.raises(UserError, match="dynamic"):
        check_context_parallel(dynamic, 2, "ring", context=65)
