"""A prompt that is cached already skips every whole block before its last token, and that token is still computed."""

from nano_llama.core.sampling import SamplingParams
from nano_llama.vol3_engine.blocks import BLOCK_SIZE
from nano_llama.vol3_engine.scheduler import Scheduler
from nano_llama.vol3_engine.sequence import Sequence
from nano_llama.vol3_engine.text import TextStream


class NoText:
    """A decoder of tokens into nothing."""

    def push(self, token):
        return ""

    def finish(self):
        return ""


def sequence(length, number):
    return Sequence(
        request=number, index=0, prompt_ids=list(range(length)), params=SamplingParams(ignore_eos=True), seed=0,
        text=TextStream(NoText()), max_length=length + 5, number=number,
    )  # fmt: skip


def step(scheduler):
    """Compute a step, and give a token to every sequence that samples -> {number: tokens computed}."""
    scheduled = scheduler.schedule()
    for one in scheduled.sampling:
        one.append(7)
    return {one.number: count for one, count in zip(scheduled.sequences, scheduled.counts, strict=True)}


def computed_again(length, first_runs_on):
    scheduler = Scheduler(max_num_seqs=4, max_num_batched_tokens=100, num_blocks=20)
    first, second = sequence(length, 1), sequence(length, 2)
    scheduler.add(first)
    step(scheduler)
    if not first_runs_on:
        scheduler.remove(first)
    scheduler.add(second)
    return step(scheduler).get(2, 0)


def test_a_repeated_prompt_computes_at_least_its_last_token():
    for length in range(1, 50):
        for runs_on in (False, True):
            count = computed_again(length, runs_on)
            assert count >= 1, f"a repeated prompt of {length} tokens computes no token, so nothing can be sampled"


def test_a_repeated_prompt_computes_no_more_than_it_must():
    for length in range(1, 50):
        count = computed_again(length, first_runs_on=False)
        cached = (length - 1) // BLOCK_SIZE * BLOCK_SIZE
        assert count == length - cached, f"a repeated prompt of {length} tokens computes {count}; {cached} are cached"
