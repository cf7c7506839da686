"""What a run is expected to need, and the refusal of what does not fit, with the flag to change."""

import pytest

from helpers.training import FakeTrainer
from nano_llama.core.errors import UserError
from nano_llama.core.presets import model_preset
from nano_llama.core.vision.config import VisionLanguageConfig
from nano_llama.core.vision.presets import encoder_preset
from nano_llama.training.backend import HostDevice
from nano_llama.training.finetune import FinetuneSettings
from nano_llama.training.flops import flops_per_token
from nano_llama.training.preflight import COPY, check_memory, memory_by_part, preflight
from nano_llama.training.settings import TrainSettings

GIB = 2**30


def test_flops_by_hand():
    config = model_preset("char")  # L4 H4 K32 D128 V65, tied
    assert flops_per_token(config, 64) == 6 * config.num_parameters + 12 * 4 * 4 * 32 * 64
    untied = config.replace(tie_word_embeddings=False)
    assert flops_per_token(untied, 64) == flops_per_token(config, 64), "a table is only looked up"


def test_parts_that_are_frozen_beside_pictures():
    text, vision = model_preset("tiny", vocab_size=50), encoder_preset("tiny")
    config = VisionLanguageConfig(text_config=text, vision_config=vision, image_token_id=49, scale_factor=2)
    D, F, projector = text.hidden_size, text.intermediate_size, config.projector_inputs * text.hidden_size
    keys = text.num_key_value_heads * text.head_dim
    inputs_and_outputs = 2 * (D + D) + 2 * (D + keys) + 3 * (D + F)  # q, o; k, v; gate, up, down
    settings = TrainSettings(
        data="shapes-vqa", init_from="x", max_steps=1, language_model_rank=3, freeze_encoder=True, context=64
    )
    factors = 3 * text.num_hidden_layers * inputs_and_outputs
    expected = preflight(config, settings)
    assert expected.parameters == factors + projector
    parts = expected.memory
    assert parts["adapter"] == 4 * factors and parts["weights"] == 4 * config.num_parameters
    assert parts["gradients"] == 4 * expected.parameters
    assert parts["activations"] < memory_by_part(config, settings.replace(freeze_encoder=False))["activations"]
    seeing = config.num_parameters - text.num_parameters
    once = 2 * seeing * vision.num_patches / 64  # forward alone
    assert expected.flops_per_token == pytest.approx(flops_per_token(text, 64, frozen=True) + once)


def test_memory_of_what_is_known_exactly():
    config = model_preset("nano")
    parts = memory_by_part(config, TrainSettings(data="x", batch_size=2, context=8))
    P = config.num_parameters
    assert parts["weights"] == parts["gradients"] == 4 * P and parts["optimizer"] == 8 * P
    assert parts["logits"] == 2 * 8 * config.vocab_size * 8
    half = memory_by_part(config, TrainSettings(data="x", batch_size=2, context=8, optimizer="muon"), compute_bytes=2)
    assert half["weights"] == 6 * P and 4 * P < half["optimizer"] < 8 * P
    assert half["activations"] < parts["activations"]


def test_memory_beneath_an_adapter():
    config, P = model_preset("350m"), model_preset("350m").num_parameters
    head = config.vocab_size * config.hidden_size

    def of(compute_bytes, **changes):
        return memory_by_part(config, FinetuneSettings(data="x", init_from="x", **changes), compute_bytes)

    plain = of(4)
    assert plain["weights"] == 4 * P and plain["gradients"] == plain["adapter"] == plain["optimizer"] / 2 < 0.2 * P
    assert 2 * P < of(2)["weights"] - 2 * head < 4 * P, "the layers' matrices are held as products read them"
    for to, bits in (("int8", 8.5), ("int4", 5)):  # and the head, when it is read
        held = of(4, base_quantization=to)["weights"] - 4 * head
        assert bits / 8 * P < held < 0.35 * 4 * P
    whole = preflight(config, FinetuneSettings(data="x", init_from="x", adapter="none"))
    adapted = preflight(config, FinetuneSettings(data="x", init_from="x"))
    assert 0.66 < adapted.flops_per_token / whole.flops_per_token < 0.75


def test_memory_of_optimizers_and_averages():
    config, P = model_preset("nano"), model_preset("nano").num_parameters
    of = lambda **changes: memory_by_part(config, TrainSettings(data="x", **changes))  # noqa: E731
    assert of(optimizer="lion")["optimizer"] == 4 * P
    assert of(optimizer="schedulefree", schedule="constant")["optimizer"] == 8 * P
    assert 0 < of(optimizer="adafactor")["optimizer"] < 0.2 * P
    plain, averaged = of(), of(ema=0.99)
    assert averaged["average"] == averaged[COPY] - plain[COPY] == 4 * P and "average" not in plain


def test_recomputing_keeps_less():
    config = model_preset("350m")
    kept = [
        memory_by_part(config, TrainSettings(data="x", activation_checkpointing=kind), 2)["activations"]
        for kind in ("none", "selective", "full")
    ]
    assert kept[0] > 1.5 * kept[1] > 4.0 * kept[2]


@pytest.mark.parametrize(
    "shape, changes, available, advice",
    [
        ("350m", {"batch_size": 16, "context": 2048}, 40 * GIB, "--batch-size"),
        ("350m", {"batch_size": 1, "context": 8192}, 20 * GIB, "--activation-checkpointing full"),
        ("350m", {"batch_size": 1, "context": 65536, "activation_checkpointing": "full"}, 20 * GIB, "--context"),
        ("8b", {"batch_size": 1}, 40 * GIB, "--model"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_flag_to_change(shape, changes, available, advice):
    config, settings = model_preset(shape), TrainSettings(data="x", **changes)
    expected = preflight(config, settings, compute_bytes=2, logits_limit=128 * 2**20)
    with pytest.raises(UserError, match="memory") as error:
        check_memory(expected, settings, available)
    assert advice in error.value.hint
    check_memory(expected, settings, None)
    if advice == "--batch-size":  # what is advised fits, and is the same step
        words = error.value.hint.split()
        batch, more = int(words[words.index("--batch-size") + 1]), int(words[words.index("--accumulate") + 1])
        smaller = settings.replace(batch_size=batch, accumulate=more)
        check_memory(preflight(config, smaller, compute_bytes=2, logits_limit=128 * 2**20), smaller, available)
        assert batch * more >= 16


def test_expected_time_and_words():
    config = model_preset("nano")
    expected = preflight(config, TrainSettings(data="x", max_steps=1000), peak_flops=1e12)
    assert expected.tokens == 1000 * 16 * 256
    assert expected.seconds == pytest.approx(expected.tokens * flops_per_token(config, 256) / 0.4e12)
    memory, work = expected.lines()
    adamw = 2 * 4 * config.num_parameters / 2**20  # two float32 numbers per parameter
    assert f"optimizer {adamw:.1f} MiB" in memory and "4,096,000 tokens" in work and "about 9 minutes" in work
    assert preflight(config, TrainSettings(data="x", max_minutes=1.0)).seconds is None


def test_a_run_too_large_is_refused_before_anything_is_written(settings, tmp_path):
    poor = type("Poor", (HostDevice,), {"available_memory": lambda self: 100_000})()
    with pytest.raises(UserError, match="memory"):
        FakeTrainer(settings, tmp_path / "run", changes={"device": poor})
    assert not (tmp_path / "run").exists()
