"""Models that no rank ever has whole: built from weights, and saved, tensor by tensor."""

from math import prod

import numpy as np
import pytest

from helpers.parallel import gathered_cases
from helpers.parallel.training import Training
from nano_llama.core.names import parameter_shapes
from nano_llama.formats.safetensors import SafetensorsFile
from nano_llama.vol2_torch.evaluate import eval_loss_sum
from nano_llama.vol2_torch.parallel import ParallelConfig

pytestmark = pytest.mark.parallel

TRAINING = Training(vocab_size=65, intermediate=99, tied=False, layers=3)  # what two ranks do not divide
MESHES = ["dp=2", "fsdp=2", "tp=2", "pp=2", "fsdp=2,tp=2", "pp=2,tp=2"]
SIZES = {name: 4 * prod(shape) for name, shape in parameter_shapes(TRAINING.config()).items()}


def on(ranks, mesh):
    return ranks(ParallelConfig.parse(mesh).world_size)


@pytest.mark.parametrize("mesh", MESHES)
def test_each_rank_takes_its_part_of_one_tensor_after_another(ranks, mesh):
    expected = eval_loss_sum(TRAINING.model(), *TRAINING.batches(0)[0])
    found = on(ranks, mesh).run(gathered_cases.built, mesh=mesh, training=TRAINING)
    for most, held, loss in found:
        assert most <= max(SIZES.values()), "one at a time"
        assert loss == pytest.approx(expected, rel=1e-6)
        assert mesh == "dp=2" or held < 0.7 * TRAINING.config().num_parameters


@pytest.mark.parametrize("mesh", MESHES)
def test_saving_holds_no_more_than_two_tensors_at_a_time(ranks, mesh, tmp_path):
    file = tmp_path / "model.safetensors"
    found = on(ranks, mesh).run(gathered_cases.saved, mesh=mesh, training=TRAINING, file=file)
    # one that is written, and the one before it while a thread of the process group still holds it
    assert all(0 < most <= 2 * max(SIZES.values()) < sum(SIZES.values()) / 4 for most in found), found
    with SafetensorsFile(file) as saved:
        assert set(saved) == {*SIZES, "seeds"} and np.array_equal(saved["seeds"], [0, 1, 2])
        for name, parameter in TRAINING.model().named_params().items():
            assert np.array_equal(saved[name], parameter.detach().numpy()), name


def test_when_the_first_rank_fails_the_others_go_on(ranks, tmp_path):
    first, other = ranks(2).run(
        gathered_cases.saved, mesh="fsdp=2", training=TRAINING, file=tmp_path / "model.safetensors", fails=True
    )
    assert first == "failed" and other > 0
