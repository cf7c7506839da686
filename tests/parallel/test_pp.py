"""Pipelines against one process: gradients, evaluation; and the naive form. Steps: test_training.py."""

import pytest

from helpers.parallel import pp_cases

pytestmark = pytest.mark.parallel
SCHEDULES = ["gpipe", "1f1b", "interleaved"]


def close(answers, tolerance=1e-10):
    assert all(answers), "every rank has parameters"
    found = {name: difference for answer in answers for name, difference in answer.items()}
    assert all(difference < tolerance for difference in found.values()), found
    return True


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("tied", [True, False])
def test_gradients_in_float64(ranks, schedule, tied):
    assert close(ranks(2).run(pp_cases.gradients, schedule=schedule, tied=tied))


@pytest.mark.parametrize("tied", [True, False])
def test_the_naive_form_has_the_same_gradients(ranks, tied):
    assert close(ranks(2).run(pp_cases.naive_gradients, tied=tied))


def test_packed_documents(ranks):
    assert close(ranks(2).run(pp_cases.gradients, schedule="1f1b", packed=True))


@pytest.mark.parametrize("checkpointing", ["selective", "full"])
def test_activation_checkpointing(ranks, checkpointing):
    assert close(ranks(2).run(pp_cases.gradients, schedule="1f1b", checkpointing=checkpointing))


def test_batches_of_different_lengths(ranks):
    assert close(ranks(2).run(pp_cases.other_shapes))


@pytest.mark.parametrize("schedule", ["1f1b", "interleaved"])
@pytest.mark.parametrize("packed", [False, True])
def test_evaluation(ranks, schedule, packed):
    assert all(ranks(2).run(pp_cases.evaluation, schedule=schedule, packed=packed))


def test_what_cannot_be_cut_is_refused_in_words(ranks):
    assert all(ranks(2).run(pp_cases.refusals))
