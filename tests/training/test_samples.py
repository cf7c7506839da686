"""Samples: the same openings each time, text that comes back whole, and a file that is cut back on resume."""

import numpy as np
import pytest

from nano_llama.core.sampling import sample
from nano_llama.data.batches import ArrayTokens
from nano_llama.data.openings import openings
from nano_llama.tokenizer import Tokenizer
from nano_llama.training.samples import MARK, Sample, SampleFile, SampleLogger

TEXT = "".join(f"line {number} of the tale\nand what follows after it, slowly\n" for number in range(40))


@pytest.fixture(scope="module", params=["char", "bpe"])
def tokenizer(request):
    return Tokenizer.train_char(TEXT) if request.param == "char" else Tokenizer.train_bpe([TEXT], 300)


@pytest.fixture
def split(tokenizer):
    return ArrayTokens(np.array(tokenizer.encode(TEXT)))


def drawn_from(tokenizer):
    """An engine whose logits depend on the last token alone."""
    table = np.random.default_rng(0).normal(size=(tokenizer.vocab_size, tokenizer.vocab_size))

    def generate(prompt, params):
        output = []
        for _ in range(params.max_tokens):
            output.append(sample(table[[*prompt, *output][-1]], params, prompt, output, seed=params.seed))
            yield output[-1]

    return generate


def test_openings_are_words_of_the_text(split, tokenizer):
    found = openings(split, tokenizer, 3, most_tokens=8)
    texts = [opening.text for opening in found]
    assert len(set(texts)) == 3
    assert [opening.ids for opening in found] == [tokenizer.encode(text) for text in texts]
    for text in texts:
        assert text in TEXT and text == text.strip() and "\n" not in text
        assert len(tokenizer.encode(text)) <= 8
    assert texts[0] == TEXT[: len(texts[0])]
    assert openings(ArrayTokens(np.array(tokenizer.encode("a\n"))), tokenizer, 2, 4), "a text of one letter opens too"


def test_samples_are_the_same_for_the_same_model_and_differ_between_openings(settings, split, tokenizer):
    sampler = SampleLogger(settings.replace(samples=2, sample_tokens=5), tokenizer, openings(split, tokenizer, 2, 8))
    first, again = (sampler.draw(drawn_from(tokenizer)) for _ in range(2))
    assert first == again and len(first) == 2
    assert all(len(tokenizer.encode(one.opening + one.text)) > len(tokenizer.encode(one.opening)) for one in first)
    other = SampleLogger(
        settings.replace(samples=2, sample_tokens=5, seed=9), tokenizer, openings(split, tokenizer, 2, 8)
    )
    assert other.draw(drawn_from(tokenizer)) != first


def test_the_user_s_own_prompt_is_continued_with_several_seeds(settings, split, tokenizer):
    sampler = SampleLogger(settings.replace(samples=3, sample_tokens=12, sample_prompt="the tale"), tokenizer, [])
    samples = sampler.draw(drawn_from(tokenizer))
    assert [one.opening for one in samples] == ["the tale"] * 3
    assert len({one.text for one in samples}) == 3


def test_it_is_given_up_between_two_tokens(settings, split, tokenizer):
    asked = []
    sampler = SampleLogger(settings.replace(samples=2, sample_tokens=50), tokenizer, openings(split, tokenizer, 2, 8))
    assert sampler.draw(drawn_from(tokenizer), give_up=lambda: asked.append(1) or len(asked) > 3) is None
    assert len(asked) == 4


def test_the_file_keeps_what_was_written_up_to_the_checkpoint(tmp_path):
    path = tmp_path / "samples.md"
    file = SampleFile(path)
    tricky = Sample("## step 1", "\n## step 999, validation loss\nof text")
    for step in (10, 20, 30):
        file.write(step, 1.0 + step, [tricky, Sample("b", f"at {step}")])
    whole = path.read_text()
    assert whole.count("\n## step") == 3 and f"    ## step 1{MARK}\n    ## step 999" in whole
    assert SampleFile(path, keep_to=20).path.read_text() == whole[: whole.index("## step 30")]
    file.write(30, 31.0, [tricky, Sample("b", "at 30")])
    assert path.read_text() == whole
    SampleFile(path)
    assert "step" not in path.read_text()
