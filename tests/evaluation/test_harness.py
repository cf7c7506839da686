"""The harness's adapter: log-likelihoods against sums over the model's own logits, then a whole task of our own."""

import json
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from nano_llama.core.errors import EnvironmentFault, UserError  # noqa: E402
from nano_llama.core.init import init_params  # noqa: E402
from nano_llama.core.presets import model_preset  # noqa: E402
from nano_llama.evaluation.harness import Scorer, run_tasks  # noqa: E402
from nano_llama.formats import save_hf  # noqa: E402
from nano_llama.tokenizer import Tokenizer  # noqa: E402

TEXT = "the quick brown fox jumps over the lazy dog, and the dog sleeps on. " * 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    tokenizer = Tokenizer.train_bpe([TEXT], 300)
    config = model_preset("tiny", vocab_size=tokenizer.vocab_size, initializer_range=0.5)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_hf(folder, config, init_params(config, seed=1), tokenizer)
    return folder


@pytest.fixture(scope="module")
def scorer(folder):
    return Scorer.load(folder, "cpu", batch_size=3)


def log_probs(scorer, ids):
    with torch.no_grad():
        return scorer.model(torch.tensor([ids]))[0].double().log_softmax(-1).numpy()


def test_scores_are_sums_over_the_logits_whatever_is_in_the_batch(scorer):
    pairs = [([5, 6, 7], [8, 9]), ([1], [2, 3, 4, 5, 6]), ([9] * 20, [3]), ([4, 4], [4, 4, 4])]
    for (context, continuation), (score, greedy) in zip(pairs, scorer.score(pairs), strict=True):
        rows = log_probs(scorer, context + continuation)[len(context) - 1 : -1]
        expected = rows[np.arange(len(continuation)), continuation].sum()
        assert score == pytest.approx(expected, rel=1e-5)
        assert greedy == (rows.argmax(-1).tolist() == continuation)
    likeliest = int(log_probs(scorer, [5, 6, 7])[-1].argmax())
    assert scorer.score([([5, 6, 7], [likeliest])])[0][1] is True


def test_a_blank_between_context_and_continuation_belongs_to_the_word_after_it(scorer):
    whole = scorer.tokenizer.encode("the quick brown")
    for context, continuation in (("the quick", " brown"), ("the quick ", "brown")):
        before, after = scorer.encode(context, continuation)
        assert before + after == whole and scorer.tokenizer.decode(after) == " brown"
    assert scorer.encode("", "fox") == ([scorer.start], scorer.tokenizer.encode("fox"))


def test_a_long_context_is_cut_at_its_beginning(scorer):
    context = [int(i) for i in np.random.default_rng(0).integers(1, 250, 100)]
    rows = log_probs(scorer, [*context[-scorer.context + 1 :], 7])
    assert scorer.score([(context, [7, 8])])[0][0] == pytest.approx(rows[-2, 7] + rows[-1, 8], rel=1e-5)


@pytest.mark.parametrize("words", [3, 30, 60])
def test_a_rolling_text_counts_every_token_once(scorer, words):
    text = " ".join(TEXT.split()[:words])
    ids = [scorer.start, *scorer.tokenizer.encode(text)]
    total = 0.0
    for begin in range(1, len(ids), scorer.context):  # the first windows are disjoint, the last looks back
        end = min(begin + scorer.context, len(ids))
        window = ids[max(end - scorer.context - 1, 0) : end]
        rows = log_probs(scorer, window[:-1])[-(end - begin) :]
        total += rows[np.arange(end - begin), window[-(end - begin) :]].sum()
    assert scorer.rolling(text) == pytest.approx(total, rel=1e-5)


def test_writing_is_greedy_and_stops(scorer):
    from nano_llama import LLM, SamplingParams

    llm = LLM.from_model(scorer.model, scorer.tokenizer)
    plain = llm.generate("the quick", SamplingParams(temperature=0.0, max_tokens=8))[0].text
    stop = plain[3:5]
    assert scorer.write(["the quick"] * 2, [[], [stop]], [8, 8]) == [plain, plain[: plain.index(stop)]]


def test_without_the_package(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(EnvironmentFault, match="lm_eval") as fault:
        run_tasks(folder, ["anything"])
    assert "[eval]" in str(fault.value.hint)


def test_a_task_of_our_own_and_one_that_needs_a_hub(folder, scorer, tmp_path, monkeypatch):
    pytest.importorskip("lm_eval")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    rows = [
        {"text": "the quick brown", "choices": ["fox", "dog"], "answer": 0},
        {"text": "the lazy", "choices": ["fox", "dog"], "answer": 1},
        {"text": "the dog sleeps", "choices": ["on", "over"], "answer": 0},
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "animals.yaml").write_text(
        f"task: animals\ndataset_path: json\ndataset_kwargs:\n  data_files:\n    test: {tmp_path / 'rows.jsonl'}\n"
        "test_split: test\noutput_type: multiple_choice\ndoc_to_text: '{{text}}'\ndoc_to_target: answer\n"
        "doc_to_choice: choices\nmetric_list:\n  - metric: acc\n"
    )
    own, remote = run_tasks(folder, ["animals", "hellaswag"], task_folder=tmp_path, device="cpu")
    right = 0
    for row in rows:
        scores = [scorer.score([scorer.encode(row["text"], " " + choice)])[0][0] for choice in row["choices"]]
        right += int(np.argmax(scores)) == row["answer"]
    assert own.metrics["acc"] == pytest.approx(right / 3) and own.examples == 3 and own.skipped is None
    assert remote.metrics == {} and "is not available here" in remote.skipped
    with pytest.raises(UserError, match="no-such-task"):
        run_tasks(folder, ["no-such-task"])


@pytest.mark.parametrize("asked", [{"do_sample": True}, {"temperature": 0.7}, {"num_beams": 4}])
def test_a_task_that_samples_is_refused(asked):
    from nano_llama.evaluation.harness import check_greedy

    with pytest.raises(UserError, match="sampled"):
        check_greedy({"until": ["x"], **asked})
    check_greedy({"until": ["x"], "do_sample": False, "temperature": 0.0, "max_gen_toks": 3})
