"""10,000 random steps of arrivals, aborts, images, shared prefixes, prompt_logprobs and tiny memories: invariants hold,
outputs are right."""

import random
from collections import Counter

import pytest

from helpers.stub_engine import IMAGE, IMAGE_ROWS, ByteTokenizer, ScriptedRunner, placed_image, with_images
from nano_llama.core.sampling import SamplingParams, sample, token_logprobs
from nano_llama.vol3_engine.blocks import BLOCK_SIZE, blocks_for
from nano_llama.vol3_engine.engine import Engine
from nano_llama.vol3_engine.requests import Requests
from nano_llama.vol3_engine.settings import EngineSettings


def check(engine, alive):
    """Whatever happened, after every step."""
    pool, scheduler = engine.scheduler.pool, engine.scheduler
    held = {}
    for sequence in alive:
        assert len(set(sequence.block_table)) == len(sequence.block_table), "a sequence uses a block twice"
        assert len(sequence.block_table) >= blocks_for(sequence.num_computed)
        for block in sequence.block_table:
            held.setdefault(block, []).append(sequence)
    assert {block: len(holders) for block, holders in held.items()} == pool.ref_counts, "a block is leaked or lost"
    evictable, free = set(pool._evictable), set(pool._free_list)
    assert not evictable & held.keys() and not free & held.keys() and not evictable & free
    assert len(evictable) + len(held) + len(free) + pool.num_blocks - pool._num_touched == pool.num_blocks
    for block, holders in held.items():
        if len(holders) > 1:  # shared: full, and the same tokens and images for all
            places = {s.block_table.index(block) for s in holders}
            assert len(places) == 1
            (place,) = places
            texts = {with_images(s.tokens(0, (place + 1) * BLOCK_SIZE), s.images) for s in holders}
            assert len(texts) == 1 and len(texts.pop()) == (place + 1) * BLOCK_SIZE
    assert len(scheduler.running) <= scheduler.max_num_seqs
    order = [s.number for s in (*scheduler.running, *scheduler.waiting)]
    assert order == sorted(order), "arrival order was not kept"


def generate_plainly(runner, sequence):
    """Token by token, without an engine: each depends on the text and the images before it alone."""
    prompt, params, output = sequence.prompt_ids, sequence.params, []
    read, ends = with_images(prompt, sequence.images), params.stop_token_ids
    while len(output) < params.max_tokens:
        logits = runner.logits((*read, *output))
        output.append(sample(logits, params, prompt, output, seed=sequence.seed, end_ids=ends))
        if output[-1] in ends:
            break
    return output


def prompt_logprobs_plainly(runner, sequence):
    prompt, count = sequence.prompt_ids, sequence.prompt_logprobs.count
    read = with_images(prompt, sequence.images)
    return [token_logprobs(runner.logits(read[:i]), prompt[i], count) for i in range(1, len(prompt))]


@pytest.mark.parametrize(
    ("seed", "steps", "prompt_logits", "settings"),
    [
        (0, 4000, 7, {"cache": 9 * 16, "max_num_seqs": 5, "max_num_batched_tokens": 20}),
        (1, 2500, 3, {"cache": 8 * 16 + 5, "max_num_seqs": 8, "max_num_batched_tokens": 8}),
        (2, 2000, 64, {"cache": 40 * 16, "max_num_seqs": 6, "max_num_batched_tokens": 64}),
        (3, 1500, 5, {"cache": 10 * 16, "max_num_seqs": 4, "max_num_batched_tokens": 17, "prefix_caching": False}),
    ],
)
def test_random_schedules_give_the_outputs_of_running_alone(monkeypatch, seed, steps, prompt_logits, settings):
    monkeypatch.setattr("nano_llama.vol3_engine.scheduler.MAX_PROMPT_LOGITS", prompt_logits)
    rng = random.Random(seed)
    runner = ScriptedRunner(max_position_embeddings=128)
    runner.separate_prefill = seed in (0, 2)
    engine = Engine(runner, EngineSettings(kv_cache_memory=settings.pop("cache"), **settings))
    requests = Requests(ByteTokenizer(), runner.config, engine.scheduler.cache_tokens)
    stems = [bytes(rng.randrange(97, 123) for _ in range(length)) for length in (8, 16, 40, 64)]
    alive, done, events = [], [], []
    computed = preempted = paused = 0
    rows_asked = Counter()  # of each prompt's logits
    split_images = 0  # whose rows are computed in several steps

    def arrive():
        prompt, images = list(rng.choice(stems)[: rng.choice([8, 16, 33, 64])]), []
        if rng.random() < 0.5:  # the same ids with one image or another
            images = [placed_image(start, rng.randrange(3)) for start in rng.choice([(3,), (12,), (2, 8), (13, 40)])]
            for placed in images:
                prompt[placed.start : placed.start] = [IMAGE] * IMAGE_ROWS
            images = [placed for placed in images if prompt[placed.start : placed.end] == [IMAGE] * IMAGE_ROWS]
        if done and rng.random() < 0.3:  # a prompt that continues another sequence's output
            earlier = rng.choice(done)
            images = [placed for placed in earlier.images if placed.end <= 80]
            prompt = [token % 256 for token in (*earlier.prompt_ids, *earlier.output_ids)][:80]
            for placed in images:
                prompt[placed.start : placed.end] = [IMAGE] * IMAGE_ROWS
        prompt += [rng.randrange(97, 123) for _ in range(rng.choice([0, 1, 5, 16]))]
        room = min(128, engine.scheduler.cache_tokens + 1) - len(prompt)
        params = SamplingParams(
            max_tokens=rng.randint(1, min(room, 30)), temperature=rng.choice([0.0, 1.0]), seed=rng.randrange(99),
            ignore_eos=True, n=rng.choice([1, 1, 1, 2, 3]), prompt_logprobs=rng.choice([None, None, 0, 2]),
            stop_token_ids=rng.sample(range(260), 8),
        )  # fmt: skip
        params = params.replace(min_tokens=rng.randint(0, params.max_tokens))
        for sequence in requests.from_prompt(0, prompt, params).sequences:
            sequence.images = images
            engine.add(sequence, events.append)
            alive.append(sequence)

    schedule = engine.scheduler.schedule

    def spied():
        nonlocal preempted, paused, split_images
        step = schedule()
        preempted += len(step.preempted)
        assert sum(step.counts) <= engine.scheduler.max_num_batched_tokens
        assert step.sequences, "there was work, and none was scheduled"
        assert sum(step.prompt_logits.values()) <= prompt_logits
        assert sum(step.num_logits) == len(step.batch.logit_rows)
        rows_asked.update(step.prompt_logits)
        split_images += sum(len(values) < IMAGE_ROWS for _, values in step.batch.embeddings)
        paused += len(engine.scheduler.running) - len(step.sequences)
        return step

    engine.scheduler.schedule = spied
    for _ in range(steps):
        while rng.random() < 0.35 and len(alive) < 12:
            arrive()
        if alive and rng.random() < 0.03:
            victim = alive.pop(rng.randrange(len(alive)))
            engine.abort(victim)
            check(engine, alive)
        if not engine.has_work:
            continue
        oldest = min(alive, key=lambda s: s.number)
        before = oldest.num_computed + len(oldest.output_ids)
        engine.step()
        computed += 1
        if not oldest.finished:
            assert oldest.num_computed + len(oldest.output_ids) > before, "the oldest sequence advances in every step"
        done += [event.sequence for event in events if event.last]
        events.clear()
        alive = [s for s in alive if not s.finished]
        check(engine, alive)
    while engine.has_work:
        engine.step()
    done += [event.sequence for event in events if event.last]
    assert engine.scheduler.pool.ref_counts == {}
    assert computed > steps / 2 and len(done) > 50 and split_images > 20
    if "prefix_caching" in settings or seed < 2:
        assert preempted > 20, "memory was never short: the test tests nothing"
        assert paused > 20 or seed == 2
    for sequence in done:
        record = sequence.prompt_logprobs
        assert sequence.output_ids == generate_plainly(runner, sequence)
        if record is not None:
            assert record.entries == prompt_logprobs_plainly(runner, sequence)
            assert rows_asked[record] == len(sequence.prompt_ids) - 1, "a row's logits were asked for twice"
