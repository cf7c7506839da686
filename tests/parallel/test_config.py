"""Axes and their sizes: what is read, what is refused and in which words. No process is started."""

import pytest

from nano_llama.core.errors import UserError
from nano_llama.vol2_torch.parallel import AXES, ParallelConfig


def test_a_mesh_is_read_and_written():
    config = ParallelConfig.parse(" fsdp=2, tp=4,")
    assert config == ParallelConfig(fsdp=2, tp=4)
    assert str(config) == "fsdp=2,tp=4"
    assert ParallelConfig.parse(str(config)) == config
    assert config.world_size == 8
    assert dict(zip(AXES, config.shape, strict=True)) == {"pp": 1, "dp": 1, "fsdp": 2, "cp": 1, "tp": 4}


@pytest.mark.parametrize("text", ["", "dp=1"])
def test_a_single_process_is_a_mesh_too(text):
    config = ParallelConfig.parse(text)
    assert config.world_size == 1 and str(config) == "dp=1"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ep=2", "unknown axis 'ep'"),
        ("dp=2,dp=2", "dp is named twice"),
        ("dp", "'dp' does not say how many ranks dp has"),
        ("dp=two", "'dp=two'"),
        ("dp=-2", "'dp=-2'"),
        ("dp=0", "dp = 0 is not a number of ranks"),
        ("tp=2.0", "'tp=2.0'"),
    ],
)
def test_what_is_not_a_mesh_is_refused(text, says):
    with pytest.raises(UserError, match="mesh") as refused:
        ParallelConfig.parse(text)
    assert says in refused.value.message and "dp=2,fsdp=2" in refused.value.hint


@pytest.mark.parametrize("size", [True, 2.0, "2", 0, None])
def test_sizes_are_whole_numbers(size):
    with pytest.raises(UserError, match="tp = "):
        ParallelConfig(tp=size)


def test_the_product_must_be_the_number_of_processes():
    config = ParallelConfig(dp=2, tp=2)
    config.check_world_size(4)
    with pytest.raises(UserError) as refused:
        config.check_world_size(2)
    assert refused.value.message == "mesh: dp=2,tp=2 needs 4 (dp 2 x tp 2), but 2 processes were started."
    assert "--nproc-per-node 4" in refused.value.hint and "dp=2" in refused.value.hint
