"""Gradients that are cut, copied or to be summed: their norm, their sum, clipping, against the whole tensors'."""

import pytest

from helpers.parallel import gradient_cases

pytestmark = pytest.mark.parallel


@pytest.mark.parametrize("mesh", ["fsdp=2,tp=2", "fsdp=2,dp=2", "fsdp=4"])
def test_the_norm_counts_every_number_once(ranks, mesh):
    for found in ranks(4).run(gradient_cases.norms, mesh=mesh):
        for name, (ours, theirs) in found.items():
            assert ours == pytest.approx(theirs, rel=1e-6), name


def test_stages_add_up(ranks):
    assert ranks(2).run(gradient_cases.norm_of_stages, mesh="pp=2") == [5.0, 5.0]


@pytest.mark.parametrize("bucket_bytes", [1, 40, 2**20])
def test_sums_over_copies(ranks, bucket_bytes):
    for found in ranks(4).run(gradient_cases.sums, mesh="dp=2,fsdp=2", bucket_bytes=bucket_bytes):
        assert found[3] is None
        assert [shape for shape, _, _ in found[:3]] == [(2, 3), (4,), (1, 1)]
        assert [dtype for _, dtype, _ in found[:3]] == ["torch.float32", "torch.float64", "torch.float32"]
    first, second, *_ = ranks(4).run(gradient_cases.sums, mesh="dp=2,fsdp=2", bucket_bytes=bucket_bytes)
    assert [values for _, _, values in first[:3]] == [[4.0], [8.0], [12.0]]  # ranks 0 and 2: 1 + 3, times 1, 2, 3
    assert [values for _, _, values in second[:3]] == [[6.0], [12.0], [18.0]]  # ranks 1 and 3


def test_partial_gradients_are_summed(ranks):
    assert ranks(2).run(gradient_cases.partial, mesh="tp=2") == [(True, [3.0] * 3)] * 2
