"""`evaluate_model` against the loss computed window by window with transformers."""

import math

import pytest

torch = pytest.importorskip("torch")

from nano_llama.core.errors import UserError  # noqa: E402
from nano_llama.data.prepare import prepare  # noqa: E402
from nano_llama.vol2_torch.evaluate import evaluate_model, find_run_settings  # noqa: E402
from nano_llama.vol2_torch.trainer import Trainer  # noqa: E402


@pytest.fixture(scope="module")
def run(tmp_path_factory, tale_module):
    from nano_llama.training.settings import TrainSettings

    settings = TrainSettings(
        data=str(tale_module), tokenizer="char", model="tiny", context=16, max_steps=10, evaluations=1, device="cpu"
    )
    out = tmp_path_factory.mktemp("runs") / "run"
    return out, Trainer(settings, out).fit()


@pytest.fixture(scope="module")
def tale_module(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "tale.txt"
    path.write_text("the quick brown fox jumps over the lazy dog; " * 90)
    return path


def test_it_is_the_loss_that_transformers_gives(run, tale_module):
    transformers = pytest.importorskip("transformers")
    out, _ = run
    model = transformers.AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
    ids = torch.from_numpy(prepare(str(tale_module), "char").val.read(0, 405).astype("int64"))
    nats = 0.0
    for start in range(0, 404, 10):
        window = ids[start : min(start + 10, 404)]
        logits = model(window[None]).logits[0].detach().log_softmax(-1)
        nats -= float(logits.gather(-1, ids[start + 1 : start + 1 + len(window), None]).sum())
    ours = evaluate_model(out, str(tale_module), context=10, batch_size=3, device="cpu")
    assert ours.tokens == 404 and ours.bytes == 405
    assert ours.loss == pytest.approx(nats / 404, rel=1e-5)
    assert ours.bits_per_byte == pytest.approx(nats / math.log(2) / 405, rel=1e-5)


def test_a_run_knows_its_data_and_context(run):
    out, result = run
    for path in (out, out / "checkpoints" / "step-00000010"):
        assert evaluate_model(path, device="cpu").loss == pytest.approx(result.evaluation.loss, rel=1e-6)
    assert evaluate_model(out, split="train", device="cpu").tokens > evaluate_model(out, device="cpu").tokens
    assert find_run_settings(out.parent) is None


def test_what_cannot_be_evaluated_is_refused(run, tmp_path):
    out, _ = run
    with pytest.raises(UserError, match="longer than the model's 16"):
        evaluate_model(out, context=17)
    with pytest.raises(UserError, match="Unknown split 'test'"):
        evaluate_model(out, split="test")
    for file in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / file).write_bytes((out / file).read_bytes())
    with pytest.raises(UserError, match="not a training run"):
        evaluate_model(tmp_path)


def test_a_model_can_be_trained_after_it_was_evaluated(tiny_config):
    import numpy as np

    from nano_llama.vol2_torch import Llama
    from nano_llama.vol2_torch.evaluate import eval_loss_sum
    from nano_llama.vol2_torch.loss import loss_sum

    model = Llama.init(tiny_config())
    tokens = np.arange(12).reshape(2, 6)
    nats = eval_loss_sum(model, tokens, tokens)
    loss = loss_sum(model, torch.from_numpy(tokens), torch.from_numpy(tokens))
    loss.backward()
    assert loss.item() == nats and model.model.norm.weight.grad is not None
