"""What is timed before `auto` decides: both forms, forward and backward, at the run's shape; the clock is handed in."""

import pytest
import torch

from nano_llama.training.settings import TrainSettings

pytestmark = pytest.mark.triton


@pytest.mark.parametrize("document_mask", [False, True])
def test_the_least_of_some_runs_of_each_form(interpreter, tiny_config, document_mask):
    from nano_llama.vol2_torch.kernels import timing

    config = tiny_config(hidden_size=32, num_attention_heads=2, num_key_value_heads=1)
    settings = TrainSettings(data="x", batch_size=2, context=9, max_steps=1, document_mask=document_mask)
    gradients, ticks = [], iter([3.0, 2.0, 5.0, 4.0, 6.0, 9.0, 8.0, 7.0, 9.5, 9.0])

    def clock(work):
        gradients.append(work())
        return next(ticks)

    found = timing.attention_seconds(config, settings, torch.device("cpu"), torch.float32, clock)
    assert found == {"sdpa": 2.0, "triton": 7.0}
    assert [x.shape for x in gradients[0]] == [(2, 2, 9, 16), (2, 1, 9, 16), (2, 1, 9, 16)]
    for sdpa, triton in zip(gradients[0], gradients[-1], strict=True):  # the same work
        torch.testing.assert_close(triton, sdpa, atol=1e-4, rtol=1e-4)
