"""What a scheme costs, beside plain NumPy in float64 on the engine's own logits, and beside Volume 1's loss."""

import math

import numpy as np
import pytest

from nano_llama.core.errors import EnvironmentFault, UserError
from nano_llama.data.batches import ArrayTokens
from nano_llama.formats import resolve_model
from nano_llama.verify import quantization
from nano_llama.verify.divergence import prompt_logits
from nano_llama.verify.quantization import SCHEMES, check_room, compare_schemes, spans

IDS = np.random.default_rng(3).integers(0, 4000, 120)
CONTEXT, MOST = 48, 110
WINDOWS = ((0, 48), (48, 96), (96, 110))


def softmax(logits):
    """In float64, as it is written in books."""
    weights = np.exp(np.asarray(logits, np.float64))
    return weights / weights.sum(-1, keepdims=True)


@pytest.fixture(scope="module")
def costs():
    seen = []
    found = compare_schemes(
        resolve_model("nano_gpt"), SCHEMES, ArrayTokens(IDS), 1190, context=CONTEXT, most_tokens=MOST,
        on_part=seen.append,
    )  # fmt: skip
    assert seen == [48, 96, 110]
    return {cost.scheme: cost for cost in found}


@pytest.fixture(scope="module")
def probabilities():
    """{scheme: (110,V)} from the engine, window by window, each in one step."""
    from nano_llama.vol3_engine.llm import LLM

    found = {}
    for scheme in ("float32", *SCHEMES):
        with LLM("nano_gpt", device="cpu", quantization=scheme, kv_cache_memory="16MiB") as llm:
            rows = [
                prompt_logits(llm, IDS[start : min(start + CONTEXT, MOST)].tolist()).copy() for start in (0, 48, 96)
            ]
        found[scheme] = softmax(np.concatenate(rows))
    return found


@pytest.mark.parametrize("scheme", SCHEMES)
def test_figures_are_those_of_plain_numpy(costs, probabilities, scheme):
    p, q = probabilities["float32"], probabilities[scheme]
    kl = (p * np.log(p / q)).sum(-1)  # (110,)
    nats, reference = (-np.log(each[np.arange(MOST), IDS[1 : MOST + 1]]) for each in (q, p))
    found = costs[scheme].to_json()
    expected = {
        "loss": nats.mean(),
        "perplexity": math.exp(nats.mean()),
        "bits_per_byte": nats.sum() / math.log(2) / (1190 * MOST / 119),
        "loss_change": nats.mean() - reference.mean(),
        "loss_change_standard_error": np.std(nats - reference, ddof=1) / math.sqrt(MOST),
        "mean_kl": kl.mean(),
        "mean_kl_standard_error": kl.std(ddof=1) / math.sqrt(MOST),
        "median_kl": np.sort(kl)[54:56].mean(),
        "max_kl": kl.max(),
        "same_choice": (p.argmax(-1) == q.argmax(-1)).mean(),
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-7), name
    assert np.sort(kl)[107] <= found["kl_99"] <= kl.max()


def test_float32_is_the_reference(costs):
    from nano_llama.vol1_numpy import Llama

    model, loss = Llama.from_pretrained(resolve_model("nano_gpt"), dtype=np.float64), 0.0
    for start, end in WINDOWS:
        p = softmax(model.forward(IDS[None, start:end])[0])
        loss -= np.log(p[np.arange(end - start), IDS[start + 1 : end + 1]]).sum() / MOST
    found = costs["float32"].to_json()
    assert found["loss"] == pytest.approx(loss, rel=1e-5)
    assert found["mean_kl"] == found["max_kl"] == found["loss_change"] == 0 and found["same_choice"] == 1
    assert 0 < costs["int8"].divergence.mean_kl.mean < costs["int4"].divergence.mean_kl.mean / 10


def test_sizes_are_those_of_the_folder(costs, tmp_path, capsys):
    from nano_llama.cli import main

    assert main(["quantize", "nano_gpt", "--to", "int4", "--out", str(tmp_path / "q"), "--quiet"]) == 0
    written = (tmp_path / "q" / "model.safetensors").read_bytes()
    header = 8 + int.from_bytes(written[:8], "little")
    assert costs["int4"].nbytes == len(written) - header
    assert f"{costs['int4'].bits_per_weight:.2f}, scales included" in capsys.readouterr().out


def test_a_text_is_read_up_to_so_many_tokens():
    tokens = ArrayTokens(np.arange(11))
    whole = [(len(ids), ids[0], int(targets[-1])) for ids, targets in spans(tokens, 4, None)]
    assert whole == [(4, 0, 4), (4, 4, 8), (2, 8, 10)]
    assert [len(ids) for ids, _ in spans(tokens, 4, 8)] == [4, 4] and [len(ids) for ids, _ in spans(tokens, 4, 5)] == [
        4,
        1,
    ]


def test_what_cannot_be_compared_is_refused(monkeypatch):
    path, text = resolve_model("nano_gpt"), ArrayTokens(IDS)
    with pytest.raises(UserError, match="'int3' is not known"):
        compare_schemes(path, ("int3",), text, 1, context=8)
    monkeypatch.setattr(quantization, "available_bytes", lambda: 10_000_000)
    with pytest.raises(EnvironmentFault, match=r"of memory together; 9\.5 MiB are free"):
        compare_schemes(path, ("int8",), text, 1, context=8)
    check_room(9_000_000)
