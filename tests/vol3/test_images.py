"""Images in the engine: every runner and schedule against Volume 2's naive generation, shared blocks, kept rows."""

import numpy as np
import pytest

from helpers.adapters import save_kinds
from helpers.vision_cases import IMAGE, tiny_vision_language_config
from nano_llama import LLM, SamplingParams, Tokenizer
from nano_llama.core.errors import UserError
from nano_llama.core.vision import to_pixel_values
from nano_llama.core.vision.init import init_vision_language_params
from nano_llama.core.vision.names import text_name
from nano_llama.formats import save_hf
from nano_llama.formats.merged import MergedWeights
from nano_llama.formats.peft import read_adapter
from nano_llama.formats.vision_folder import open_language_model, open_vision_language, save_vision_language
from nano_llama.tokenizer.image_token import with_image_token
from nano_llama.vol1_numpy.vision.image_encoder import ImageEncoder
from nano_llama.vol3_engine.blocks import BLOCK_SIZE
from nano_llama.vol3_engine.image_reader import ImageReader
from nano_llama.vol3_engine.images import ImageRows, PlacedImage, digests_between, embeddings_between
from nano_llama.vol3_engine.scheduler import Scheduler

pytest.importorskip("torch")

from helpers.vision_models import naive, picture, save_tiny
from nano_llama.vol1_numpy.vision import VisionLanguageModel
from nano_llama.vol2_torch.vision import VisionLanguageModel as TorchVisionLanguageModel

COUNT = 10
GREEDY = SamplingParams(temperature=0.0, max_tokens=COUNT, ignore_eos=True)
PROMPTS = [  # ids with one image token for each picture
    ([1, IMAGE, 3, 4], [1]),
    ([IMAGE, IMAGE, 5], [1, 2]),
    ([1, 2, 3], []),
    ([7] * 14 + [IMAGE] * 3 + [2] * 5, [3, 1, 2]),  # the first picture lies across a block's end
    ([7] * 14 + [IMAGE] * 3 + [2] * 5, [3, 2, 2]),  # the same ids, another second picture
]


def given(ids, pictures):
    return {"prompt": ids, "images": [picture(seed) for seed in pictures]}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder, and what Volume 2 says, greedily, of each prompt."""
    folder = tmp_path_factory.mktemp("vision") / "model"
    model = save_tiny(folder)
    texts = [naive(model, ids, [picture(seed) for seed in pictures], COUNT) for ids, pictures in PROMPTS]
    assert texts[3] != texts[4] and texts[0] != naive(model, PROMPTS[0][0], [picture(9)], COUNT), "pictures matter"
    return folder, texts


@pytest.mark.parametrize("runner", ["cpu", "numpy", "torch"])
def test_every_runner_equals_volume_2(saved, runner):
    folder, texts = saved
    with LLM(folder, runner=runner, device="cpu", num_threads=1) as llm:
        outputs = llm.generate([given(*prompt) for prompt in PROMPTS], GREEDY)
        assert [out.token_ids for out in outputs] == texts
        ids, n = PROMPTS[1][0], llm.images.config.image_seq_len
        assert outputs[1].prompt_token_ids == [IMAGE] * 2 * n + ids[2:]


SCHEDULES = {
    "whole prompts": {},
    "chunks that split pictures": {"max_num_batched_tokens": 3, "max_num_seqs": 3},
    "one token a step": {"max_num_batched_tokens": 1, "max_num_seqs": 1},
    "preemption": {"kv_cache_memory": 5, "max_num_batched_tokens": 24},  # blocks
    "no prefix caching": {"prefix_caching": False, "max_num_batched_tokens": 17, "max_num_seqs": 2},
}


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule_gives_the_same_tokens_and_logprobs(monkeypatch, saved, schedule):
    """Also sampled ones, and to the last bit, which the logprobs show."""
    folder, texts = saved
    settings = dict(SCHEDULES[schedule])
    alone = LLM(folder, device="cpu", dtype="float32", num_threads=1, prefix_caching=False)
    if "kv_cache_memory" in settings:
        settings["kv_cache_memory"] *= BLOCK_SIZE * alone.engine.runner.kv_bytes_per_token
    preempt, preempted = Scheduler._preempt_last, []
    monkeypatch.setattr(Scheduler, "_preempt_last", lambda *args: (preempted.append(1), preempt(*args)))
    with alone, LLM(folder, device="cpu", dtype="float32", num_threads=1, **settings) as llm:
        prompts = [given(*prompt) for prompt in PROMPTS] * 2
        assert [out.token_ids for out in llm.generate(prompts, GREEDY)] == texts * 2
        params = SamplingParams(temperature=1.0, seed=5, max_tokens=COUNT, ignore_eos=True, logprobs=2)
        for prompt, out in zip(prompts, llm.generate(prompts, params), strict=True):
            (meant,) = alone.generate(prompt, params)
            assert out.token_ids == meant.token_ids and out.outputs[0].logprobs == meant.outputs[0].logprobs
    assert bool(preempted) == (schedule == "preemption")


def test_blocks_are_shared_by_the_same_picture_only(saved):
    folder, _ = saved
    prompt = given([7] * 14 + [IMAGE] * 3 + [2] * 8, [3, 1, 2])  # 34 tokens: the second block holds all three
    with LLM(folder, device="cpu", num_threads=1) as llm:
        llm.generate(prompt, GREEDY)
        cases = (([3, 1, 2], 32), ([3, 1, 1], 16), ([3, 2, 2], 16), ([1, 1, 2], 0), ([3, 1, 2], 32))
        for pictures, cached in cases:
            (out,) = llm.generate(given(prompt["prompt"], pictures), GREEDY)
            assert out.num_cached_tokens == cached, pictures
        text_only = [7] * 16
        (out,) = llm.generate([[*text_only, 1]], GREEDY)
        assert out.num_cached_tokens == 0


def test_the_image_token_is_never_sampled(saved):
    folder, _ = saved
    with LLM(folder, device="cpu", num_threads=1) as llm:
        wish = {"logit_bias": {IMAGE: 100}, "ignore_eos": True, "max_tokens": 30}
        for params in (SamplingParams(temperature=0.0, **wish), SamplingParams(temperature=2.0, seed=1, **wish)):
            assert IMAGE not in llm.generate(given(*PROMPTS[0]), params)[0].token_ids


def test_volumes_in_memory_and_an_encoder_that_is_handed_in(saved):
    folder, texts = saved
    numpy_model = VisionLanguageModel.from_pretrained(folder)
    calls = []

    def encoder(pixel_values):
        calls.append(len(pixel_values))
        return numpy_model.encode(pixel_values)

    prompts = [given(*prompt) for prompt in PROMPTS[:3]]
    with LLM.from_model(numpy_model, None, num_threads=1) as llm:
        assert [out.token_ids for out in llm.generate(prompts, GREEDY)] == texts[:3]
    with LLM(folder, runner="numpy", num_threads=1, encoder=encoder) as llm:
        assert [out.token_ids for out in llm.generate(prompts, GREEDY)] == texts[:3]
    assert calls == [1, 1], "pictures 1 and 2, each once"
    wrong = LLM(folder, runner="numpy", num_threads=1, encoder=lambda pixel_values: np.zeros((1, 2, 3)))
    with wrong as llm, pytest.raises(UserError, match=r"returned an array \(1, 2, 3\)"):
        llm.generate(prompts[0], GREEDY)


def test_a_model_in_training_is_served_as_it_is_now(saved):
    model = VisionLanguageModel.from_pretrained(saved[0])
    with LLM.from_model(model, None, num_threads=1) as llm:
        prompt = given([7] * 14 + [IMAGE] * 3 + [2] * 5, [3, 1, 2])
        (before,) = llm.generate(prompt, GREEDY)
        model.params["model.connector.modality_projection.proj.weight"][:] *= -1
        (after,) = llm.generate(prompt, GREEDY)
        fresh = LLM.from_model(model, None, num_threads=1).generate(prompt, GREEDY)[0]
        assert after.token_ids == fresh.token_ids != before.token_ids


def test_text_prompts(tmp_path):
    words = Tokenizer.train_bpe(["what colour is the shape? red or blue <|endoftext|>"] * 3, 280)
    tokenizer = with_image_token(words)
    image = words.vocab_size
    model = save_tiny(tmp_path / "m", tokenizer=tokenizer, vocab_size=image + 1, image_token_id=image)
    with LLM(tmp_path / "m", runner="numpy", num_threads=1) as llm:
        (out,) = llm.generate({"prompt": "<image>what colour? <|endoftext|>", "images": [picture(1)]}, GREEDY)
        ids = [image, *words.encode("what colour? <|endoftext|>")]
        assert words.eos_id not in ids, "typed by a user, it is text"
        assert out.token_ids == naive(model, ids, [picture(1)], COUNT)
        assert out.prompt.startswith("<image>what")
        (text,) = llm.generate("what colour?", GREEDY)
        assert text.token_ids == naive(model, words.encode("what colour?"), [], COUNT)
        message = {"role": "user", "content": [{"type": "image", "image": picture(1)}, {"type": "text", "text": "red"}]}
        (out,) = llm.chat([message], GREEDY)
        assert out.token_ids == naive(model, [image, *words.encode("red")], [picture(1)], COUNT)
        assert llm.generate({"prompt": "red"}, GREEDY)[0].token_ids == llm.generate("red", GREEDY)[0].token_ids
        for prompt, count, images in (("what?", 0, 1), ("<image><image>", 2, 1), ("<image>", 1, 0)):
            with pytest.raises(UserError, match=f"has <image> {count} times and {images} images"):
                llm.generate({"prompt": prompt, "images": [picture(1)] * images}, GREEDY)
        with pytest.raises(UserError, match="has <image> 1 times and 0 images"):
            llm.generate("<image>what?", GREEDY)
        with pytest.raises(UserError, match="reads one message"):
            llm.chat([message, message], GREEDY)
        with pytest.raises(UserError, match="context"):
            llm.generate({"prompt": "<image>" * 50, "images": ["no such file"] * 50}, GREEDY)


def test_refused_by_models_of_text(tmp_path):
    llm = LLM("nano_gpt", runner="numpy", num_threads=1)
    with llm:
        for call in (
            lambda: llm.generate([{"prompt": "What is this?", "images": [picture(1)]}], GREEDY),
            lambda: llm.chat([{"role": "user", "content": [{"type": "image", "image": picture(1)}]}], GREEDY),
        ):
            with pytest.raises(UserError, match="reads text only") as refusal:
                call()
            assert "Idefics3" in refusal.value.hint
        assert llm.generate({"prompt": "a"}, GREEDY)[0].token_ids == llm.generate("a", GREEDY)[0].token_ids
        with pytest.raises(UserError, match="a dict of prompt and images"):
            llm.generate({"text": "a"}, GREEDY)
    with pytest.raises(UserError, match=r"encoder: .* reads text only"):
        LLM("nano_gpt", encoder=lambda pixel_values: pixel_values)


@pytest.mark.parametrize("quantization", ["int8", "int4"])
def test_a_quantized_model_is_its_quantized_llama_and_the_encoder_as_it_was(tmp_path, quantization):
    config = tiny_vision_language_config()
    text = config.text_config.replace(hidden_size=32, intermediate_size=64, head_dim=8, max_position_embeddings=160)
    params = init_vision_language_params(config := config.replace(text_config=text), 1)
    save_vision_language(tmp_path / "eyes", config, params)
    with open_language_model(tmp_path / "eyes") as llama:
        save_hf(tmp_path / "text", llama.config, dict(llama.items()))
    settings = {"device": "cpu", "num_threads": 1, "quantization": quantization}
    with LLM(tmp_path / "eyes", **settings) as llm, LLM(tmp_path / "text", **settings) as alone:
        scored = GREEDY.replace(logprobs=2, logit_bias={IMAGE: -100})  # the model of text might say it
        one, same = (engine.generate([[1, 2, 3]], scored)[0].outputs[0] for engine in (llm, alone))
        assert one.token_ids == same.token_ids and one.logprobs == same.logprobs
        rows = ImageEncoder(config, params)(to_pixel_values(picture(1)[None]))[0]
        np.testing.assert_array_equal(llm.images.rows(picture(1)).rows, rows)
        first, second = (llm.generate(given([1, IMAGE, 3], [seed]), scored)[0] for seed in (1, 2))
        assert first.outputs[0].logprobs != second.outputs[0].logprobs, "pictures matter"


@pytest.mark.parametrize("runner", ["cpu", "numpy", "torch"])
def test_adapters_of_the_llama_in_one_batch_equal_merged_weights(saved, tmp_path, runner):
    """Each beside the same pictures, whose rows and blocks are shared only by requests of one adapter."""
    folder, texts = saved
    (config, weights), llama = open_vision_language(folder), open_language_model(folder)
    adapters, models = save_kinds(tmp_path, llama.config, llama), {}
    for name, adapter in adapters.items():
        merged = MergedWeights(llama, read_adapter(adapter, llama.config))
        changed = {text_name(matrix): value for matrix, value in merged.items()}
        save_vision_language(tmp_path / f"merged-{name}", config, {**weights, **changed})
        models[name] = TorchVisionLanguageModel.from_pretrained(tmp_path / f"merged-{name}").eval()
    chosen = ["lora", None, "dora", "lora", "dora"]
    with LLM(folder, runner=runner, device="cpu", num_threads=1, adapter=adapters) as llm:
        outputs = llm.generate([given(*prompt) for prompt in PROMPTS] * 2, GREEDY, adapter=chosen * 2)
    for place, out in enumerate(outputs):
        (ids, pictures), name, meant = PROMPTS[place % 5], chosen[place % 5], texts[place % 5]
        if name is not None:
            base, meant = meant, naive(models[name], ids, [picture(seed) for seed in pictures], COUNT)
            assert meant != base, "adapters matter"
        assert out.token_ids == meant, (place, name)


# -- what the scheduler asks ------------------------------------------------------------------------------------------


def test_parts_of_images():
    rows = np.arange(8, dtype=np.float32).reshape(4, 2)
    images = [PlacedImage(2, ImageRows(b"a", rows)), PlacedImage(6, ImageRows(b"b", -rows))]
    for start in range(12):
        for end in range(start + 1, 12):
            whole = {p.start + i: row for p in images for i, row in enumerate(p.image.rows)}
            found = {}
            for first, values in embeddings_between(images, start, end):
                found |= {start + first + i: row for i, row in enumerate(values)}
            assert found.keys() == {place for place in whole if start <= place < end}
            assert all(np.array_equal(found[place], whole[place]) for place in found)
            meant = tuple(p.image.digest for p in images if set(range(p.start, p.end)) & set(range(start, end)))
            assert digests_between(images, start, end) == meant


def test_rows_are_kept_within_their_bytes():
    config, calls = tiny_vision_language_config(), []
    shape = (1, config.image_seq_len, config.text_config.hidden_size)

    def encode(pixel_values):
        calls.append(float(pixel_values[0, 0, 0, 0]))
        return np.full(shape, pixel_values[0, 0, 0, 0], np.float32)

    reader = ImageReader(config, encode, cache_bytes=2 * 4 * int(np.prod(shape)))
    for seed, encoded in ((1, 1), (2, 2), (1, 2), (3, 3), (1, 3), (2, 4)):  # 3 displaces 2, which was used before 1
        assert reader.rows(picture(seed)).rows[0, 0] == np.float32(picture(seed)[0, 0, 0] / 127.5 - 1)
        assert len(calls) == encoded, seed
    same = reader.rows(picture(2).copy())
    assert same.digest == reader.rows(picture(2)).digest != reader.rows(picture(4)).digest
