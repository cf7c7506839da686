"""Stages of a pipeline, one after another in one process, against the whole model."""

import pytest
import torch

from helpers.parallel import one_process
from nano_llama.core.errors import UserError
from nano_llama.vol2_torch.packing import within_documents
from nano_llama.vol2_torch.parallel.pp import choose_microbatches
from nano_llama.vol2_torch.parallel.stage import Stage, layers_of_stage


def through(stages, x, **given):
    for stage in stages:
        x = stage(x, **given)
    return x


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_the_stages_one_after_another_are_the_model(tied, count):
    model = one_process.model(tied)
    tokens, _ = one_process.batch(0)
    stages = [Stage(model, index, count) for index in range(count)]
    assert torch.equal(through(stages, tokens), model.hidden_states(tokens))
    assert stages[-1].head_weight is model.head_weight


def test_packed_documents_go_through_the_stages():
    model = one_process.model()
    (tokens, _), documents = one_process.batch(0), one_process.documents(0)
    positions, mask = within_documents(documents)
    expected = model.hidden_states(tokens, positions=positions, mask=mask)
    stages = [Stage(model, index, 2) for index in range(2)]
    assert torch.equal(through(stages, tokens, documents=documents), expected)


@pytest.mark.parametrize("tied", [True, False])
def test_the_parameters_keep_their_names_and_only_a_tied_embedding_is_held_twice(tied):
    model = one_process.model(tied)
    stages = [Stage(model, index, 3) for index in range(3)]
    held = [(name, parameter) for stage in stages for name, parameter in stage.named_parameters()]
    whole = model.named_params()
    assert all(parameter is whole[name] for name, parameter in held)
    names = [name for name, _ in held]
    assert set(names) == set(whole)
    assert [name for name in whole if names.count(name) > 1] == (["model.embed_tokens.weight"] if tied else [])


def test_layers_are_divided_evenly_and_the_stage_with_the_head_has_no_more_than_others():
    for layers in range(1, 12):
        for stages in range(1, layers + 1):
            parts = [layers_of_stage(layers, index, stages) for index in range(stages)]
            assert [layer for part in parts for layer in part] == list(range(layers))
            lengths = [len(part) for part in parts]
            assert max(lengths) - min(lengths) <= 1
            assert lengths == sorted(lengths, reverse=True)
    with pytest.raises(UserError, match="3 layers cannot be cut into the 4 stages"):
        layers_of_stage(3, 0, 4)


def test_microbatches_divide_the_batch_and_keep_every_stage_busy():
    assert choose_microbatches(8, 2) == 4
    assert choose_microbatches(6, 2) == 6  # 4 and 5 do not divide it
    assert choose_microbatches(32, 4) == 8
    with pytest.raises(UserError, match="pp=4: a batch of 6 rows is not enough for 8 microbatches"):
        choose_microbatches(6, 4)
