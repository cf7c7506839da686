"""Prompts with images against transformers' Idefics3Processor: ids, pixels and logits, of images split into tiles and
whole ones.

Pixels are compared with its processor on Pillow, and are the same to the last bit; that on torchvision resizes with
another filter, whose bytes differ.
"""

import json

import numpy as np
import pytest

from helpers.op_references import relative_error
from nano_llama import LLM, SamplingParams
from nano_llama.core.errors import ContextLengthError
from nano_llama.core.vision import to_pixel_values
from nano_llama.vol3_engine.batch import Chunk, Embeddings, PackedBatch

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
Image = pytest.importorskip("PIL.Image")

from helpers.idefics3 import save_idefics3  # noqa: E402

SIZES = {"wide": (30, 11), "tall": (5, 40), "square": (17, 17), "a square of the encoder": (8, 8), "thin": (1, 300)}


def image(width, height, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module", params=[True, False], ids=["split", "whole"])
def both(request, tmp_path_factory):
    """(model, processor) of theirs, and the engine on the same folder."""
    folder = tmp_path_factory.mktemp("idefics3") / "model"
    model, processor = save_idefics3(folder, split=request.param)
    with LLM(folder, device="cpu", dtype="float32", num_threads=1) as llm:
        yield model, processor, llm


def theirs(processor, text, images):
    return processor(text=text, images=[[Image.fromarray(one) for one in images]], return_tensors="pt")


def logits_of(llm, ids, placed):
    rows = [Embeddings(one.start, one.image.rows) for one in placed]
    table = list(range(-(-len(ids) // 16)))
    chunk = Chunk(list(ids), 0, len(ids), table, num_logits=len(ids), embeddings=rows)
    return llm.engine.runner.execute(PackedBatch.pack([chunk]))  # (T,V)


@pytest.mark.parametrize("names", [[name] for name in SIZES] + [["wide", "square", "tall"]], ids="+".join)
def test_prompt_pixels_and_logits(both, names):
    """Also of several images in a prompt, where each has its own number of tiles."""
    model, processor, llm = both
    images = [image(*SIZES[name], seed) for seed, name in enumerate(names)]
    text = "what is" + "".join(f" <image>{'or' * number}" for number in range(len(names))) + "\nred?"
    meant = theirs(processor, text, images)
    request = llm.request({"prompt": text, "images": images}, params())
    assert request.prompt_ids == meant["input_ids"][0].tolist()
    read = [llm.images.read(one) for one in images]
    pixels = to_pixel_values(np.concatenate([one.pixels for one in read]))
    assert np.abs(pixels - meant["pixel_values"][0].numpy()).max() < 1e-6 and meant["pixel_attention_mask"].all()
    with torch.no_grad():
        expected = model(**meant).logits[0]
    assert relative_error(logits_of(llm, request.prompt_ids, request.sequences[0].images), expected) < 1e-5
    assert llm.images.processing.do_image_splitting == (max(len(one.pixels) for one in read) > 1)


def params(count=8):
    return SamplingParams(temperature=0.0, max_tokens=count, ignore_eos=True)


CONVERSATIONS = {
    "an image first": [{"role": "user", "content": [0, "what colour?"]}],
    "an image last": [{"role": "user", "content": ["what colour is", 1, "?"]}],
    "several turns": [
        {"role": "system", "content": ["red or blue"]},
        {"role": "user", "content": [0, 1, "which?"]},
        {"role": "assistant", "content": ["blue."]},
        {"role": "user", "content": [2]},
    ],
}


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_conversations(both, name):
    """Through the model's template: ids, and greedy answers to the token."""
    model, processor, llm = both
    images = [image(*SIZES[kind], seed) for seed, kind in enumerate(("wide", "tall", "square"))]

    def filled(part_of_image):
        return [
            {**turn, "content": [{"type": "text", "text": part} if isinstance(part, str) else part_of_image(part)
                                 for part in turn["content"]]}
            for turn in CONVERSATIONS[name]
        ]  # fmt: skip

    shown = [part for turn in CONVERSATIONS[name] for part in turn["content"] if isinstance(part, int)]
    text = processor.apply_chat_template(filled(lambda _: {"type": "image"}), add_generation_prompt=True)
    meant = theirs(processor, text, [images[number] for number in shown])
    (out,) = llm.chat(filled(lambda number: {"type": "image", "image": images[number]}), params())
    assert out.prompt_token_ids == meant["input_ids"][0].tolist()
    banned = [[model.config.image_token_id]]
    with torch.no_grad():
        answer = model.generate(
            **meant, do_sample=False, max_new_tokens=8, min_new_tokens=8, bad_words_ids=banned, eos_token_id=None
        )
    assert out.token_ids == answer[0, meant["input_ids"].shape[1] :].tolist()


def test_chunks_that_split_tiles(both, tmp_path):
    """Squares in steps of 7 tokens, beside other requests and twice, the second time from cached blocks."""
    model, processor, llm = both
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    prompts = [
        {"prompt": f"what is{'<image>' * len(names)}?", "images": [image(*SIZES[name], seed) for name in names]}
        for seed, names in enumerate([["wide"], ["tall"], ["wide"], ["square", "wide"]])
    ]
    alone = [llm.generate(prompt, params())[0].token_ids for prompt in prompts]
    settings = {"max_num_batched_tokens": 7, "max_num_seqs": 3}
    with LLM(tmp_path, device="cpu", dtype="float32", num_threads=1, **settings) as small:
        for cached in (False, True):
            outputs = small.generate(prompts, params())
            assert [out.token_ids for out in outputs] == alone
            assert all(bool(out.num_cached_tokens) == cached for out in outputs if len(out.prompt_token_ids) > 32)


def test_texts_and_parts_read_alike(both):
    """A template that reads parts only would print nothing for a text: it gets the text as its one part."""
    _, _, llm = both
    texts = [{"role": "user", "content": "what colour?"}, {"role": "assistant", "content": "red"}]
    texts.append({"role": "user", "content": "is it?"})
    parts = [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in texts]
    ids = [llm.tokenizer.encode_chat(messages) for messages in (texts, parts)]
    assert ids[0] == ids[1] and "what colour?" in llm.tokenizer.decode(ids[0])


def test_the_layout_of_transformers_4(both, tmp_path):
    """preprocessor_config.json, chat_template.json: the hub's SmolVLM has these."""
    model, processor, llm = both
    model.save_pretrained(tmp_path)
    processor.tokenizer.save_pretrained(tmp_path)
    own = processor.image_processor.to_dict()
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(own | {"processor_class": "Idefics3Processor"}))
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_seq_len": 4}))
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": processor.chat_template}))
    message = {"role": "user", "content": [{"type": "image", "image": image(30, 11)}, {"type": "text", "text": "red?"}]}
    with LLM(tmp_path, device="cpu", dtype="float32", num_threads=1) as other:
        for one, same in zip(other.chat([message], params()), llm.chat([message], params()), strict=True):
            assert (one.prompt_token_ids, one.token_ids) == (same.prompt_token_ids, same.token_ids)


def test_what_is_too_long_is_not_read_to_its_end(both):
    _, _, llm = both
    split = llm.images.processing.do_image_splitting
    nine = [image(40, 40)] * 9  # 10 squares each where they are split: they fill the context alone
    for images in (["no such file"] * 80, *([[*nine, *["no such file"] * 40]] if split else [])):
        with pytest.raises(ContextLengthError):
            llm.generate({"prompt": "<image>" * len(images), "images": images}, params())
