"""lm-evaluation-harness as a client (`local-completions`, remote tokenizer): it finds what we find in process."""

import numpy as np
import pytest

from helpers.api import TEXT, listening
from nano_llama import LLM, SamplingParams
from nano_llama.tokenizer import Tokenizer
from nano_llama.vol1_numpy import Llama

pytestmark = pytest.mark.server
pytest.importorskip("lm_eval")
pytest.importorskip("tenacity")

PAIRS = [("the quick brown", " fox"), ("naïve", " café, 漢字"), ("the lazy", " dog sleeps, and so on"), ("over", " 🙂")]


def load(folder) -> LLM:
    return LLM(folder, device="cpu", num_threads=1)


def harness_model(address: str, **options):
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    return LocalCompletionsAPI(
        model="tiny", base_url=f"{address}/v1/completions", tokenizer_backend="remote", max_length=256, max_retries=1,
        **options,
    )  # fmt: skip


def instance(kind: str, *arguments):
    from lm_eval.api.instance import Instance

    return Instance(kind, {}, arguments, 0)


def in_process(llm: LLM, context: list[int], continuation: list[int]) -> tuple[float, bool]:
    """The harness's question, asked of the engine itself."""
    (out,) = llm.generate([context + continuation], SamplingParams(max_tokens=1, prompt_logprobs=1))
    entries = out.prompt_logprobs[len(context) :]
    scores = [entry[token].logprob for entry, token in zip(entries, continuation, strict=True)]
    greedy = all(entry[token].rank == 1 for entry, token in zip(entries, continuation, strict=True))
    return sum(scores), greedy


@pytest.mark.parametrize("options", [{}, {"batch_size": 3}, {"num_concurrent": 3}])
def test_log_likelihoods(folder, options):
    with (
        LLM(folder, device="cpu", num_threads=1) as llm,
        listening(LLM(folder, device="cpu", num_threads=1)) as address,
    ):
        model = harness_model(address, **options)
        assert model.tokenizer.eos_token == "<|endoftext|>" and model.prefix_token_id == llm.tokenizer.eos_id
        found = model.loglikelihood([instance("loglikelihood", *pair) for pair in PAIRS])
        for (context, continuation), (score, greedy) in zip(PAIRS, found, strict=True):
            before = llm.tokenizer.encode(context)
            after = llm.tokenizer.encode(context + continuation)[len(before) :]
            wanted, likeliest = in_process(llm, before, after)
            assert score == pytest.approx(wanted, abs=1e-6)
            assert greedy == likeliest


def test_a_rolling_text_against_volume_1(folder):
    tokenizer, text = Tokenizer.from_pretrained(folder), TEXT[:200]
    ids = [tokenizer.eos_id, *tokenizer.encode(text)]
    logits = Llama.from_pretrained(folder).forward(np.array([ids[:-1]]))[0].astype(np.float64)
    rows = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    wanted = rows[np.arange(len(ids) - 1), ids[1:]].sum()
    with listening(load(folder)) as address:
        (score,) = harness_model(address).loglikelihood_rolling([instance("loglikelihood_rolling", text)])
    assert score == pytest.approx(wanted, rel=1e-5)


def test_writing(folder):
    with (
        LLM(folder, device="cpu", num_threads=1) as llm,
        listening(LLM(folder, device="cpu", num_threads=1)) as address,
    ):
        text = llm.generate("the quick", SamplingParams(temperature=0, max_tokens=12))[0].text
        stop = text[4:6]
        (written,) = harness_model(address).generate_until(
            [instance("generate_until", "the quick", {"until": [stop], "max_gen_toks": 12})]
        )
        assert written == text[: text.index(stop)]
