"""`measure` runs the load that it reports, and its figures follow from a fake clock."""

import numpy as np
import pytest

from nano_llama.core.errors import UserError
from nano_llama.core.presets import model_preset
from nano_llama.vol3_engine.benchmark import CHUNK, Load, Speed, Timed, measure

MILLISECOND = 0.001


class Clockwork:
    """A runner whose step takes 1 ms, and 0.1 ms more per row. It records its batches."""

    weight_bytes, kv_bytes_per_token = 1000, 10

    def __init__(self, context=8192):
        self.config = model_preset("tiny", vocab_size=50, max_position_embeddings=context)
        self.now, self.batches, self.closed = 0.0, [], False
        self.seconds = {"matrices": 0.0, "attention": 0.0}

    def allocate(self, num_blocks, block_size):
        self.room = num_blocks, block_size

    def execute(self, batch):
        self.batches.append(batch)
        taken = MILLISECOND * (1 + 0.1 * batch.num_tokens)
        self.now += taken
        self.seconds["matrices"] += 0.75 * taken
        self.seconds["attention"] += 0.25 * taken
        return np.eye(50)[[batch.token_ids[row] for row in batch.logit_rows]]  # a sequence repeats its last token

    def close(self):
        self.closed = True


def measured(load, runner=None):
    runner = runner or Clockwork()
    rounds = []
    return measure(runner, load, clock=lambda: runner.now, on_round=rounds.append), runner, rounds


def test_figures_from_a_fake_clock():
    speed, runner, rounds = measured(Load(batch=2, prompt_tokens=20, new_tokens=8, repeats=3))
    assert speed.prefill_seconds == pytest.approx(0.005)  # 1 + 40 rows' 4 ms
    assert speed.prefill_tokens_per_second == pytest.approx(8000)
    assert speed.step_seconds == pytest.approx(0.0012)
    assert speed.decode_tokens_per_second == pytest.approx(2 / 0.0012)
    assert speed.phases == pytest.approx({"matrices": 0.0009, "attention": 0.0003})
    assert speed.kv_bytes == 2 * 24 * 10
    assert speed.bytes_per_token == (1000 + 480) / 2
    assert speed.roofline(1_480_000) == pytest.approx(2000)  # 1,000 steps per second of two sequences
    assert rounds == [1, 2, 3]
    assert not runner.closed, "its owner closes it"


@pytest.mark.parametrize(
    "load", [Load(1, 5, 3, 1), Load(3, 33, 2, 2), Load(5, 1000, 1, 1), Load(1, 2 * CHUNK + 7, 2, 1)]
)
def test_every_position_is_computed_once_per_round_in_blocks_of_its_own(load):
    _, runner, _ = measured(load)
    blocks, size = runner.room
    seen = []  # (text's first block, position, token), in order
    for batch in runner.batches:
        assert batch.num_tokens <= CHUNK
        assert [end - 1 for end in batch.starts[1:]] == batch.logit_rows
        for s in range(batch.num_sequences):
            assert len(batch.block_tables[s]) * size >= batch.length(s)
            ids = batch.token_ids[batch.starts[s] : batch.starts[s + 1]]
            seen += [(batch.block_tables[s][0], batch.positions[s] + i, token) for i, token in enumerate(ids)]
    texts = sorted({text for text, _, _ in seen})
    tables = {tuple(table) for batch in runner.batches for table in batch.block_tables}
    assert len(texts) == load.batch == len(tables)
    assert sorted(block for table in tables for block in table) == list(range(blocks))
    for text in texts:
        positions = [position for its, position, _ in seen if its == text]
        assert positions == list(range(load.prompt_tokens + load.new_tokens)) * (load.repeats + 1)
        for (_, position, token), (_, _, before) in zip(seen[1:], seen[:-1], strict=True):
            if load.batch == 1 and position >= load.prompt_tokens:
                assert token == before, "the most likely token is the next one computed"


def test_a_runner_that_does_not_time_its_phases():
    runner = Clockwork()
    del runner.seconds
    runner.execute = lambda batch: np.zeros((len(batch.logit_rows), 50))
    runner.now = 1.0
    clock = iter(range(100))
    speed = measure(runner, Load(1, 4, 2, 1), clock=lambda: next(clock))
    assert speed.phases == {}
    assert isinstance(Clockwork(), Timed)


def test_a_load_beyond_the_context_is_refused():
    with pytest.raises(UserError, match="max_position_embeddings"):
        measured(Load(prompt_tokens=60, new_tokens=5), Clockwork(context=64))
    measured(Load(prompt_tokens=60, new_tokens=4), Clockwork(context=64))


def test_torch_runner_counts_the_bytes_that_a_step_reads(tiny_config):
    torch = pytest.importorskip("torch")
    from nano_llama.vol2_torch import Llama
    from nano_llama.vol3_engine.runner.torch import TorchRunner

    for tied in (True, False):
        config = tiny_config("gqa", tied=tied)
        runner = TorchRunner(Llama.init(config, seed=0))
        embedding = config.vocab_size * config.hidden_size
        assert runner.weight_bytes == 4 * (config.num_parameters - (0 if tied else embedding))
    speed = measure(runner, Load(2, 9, 3, 1))
    assert isinstance(speed, Speed)
    assert speed.step_seconds > 0
    assert torch.is_grad_enabled()
