"""What differs from LLaMA is named, and refused by what has LLaMA's form alone."""

import pytest

from nano_llama.core.errors import ConfigError, UserError
from nano_llama.core.variants import LLAMA, require_llama, variants
from nano_llama.training.settings import TrainSettings

CHANGES = {"hidden_act": "relu2", "sliding_window": 8, "norm_placement": "reordered"}


def test_of_configs_and_of_settings_that_leave_them_open(tiny_config):
    assert variants(tiny_config()) == variants(TrainSettings(data="x")) == {}
    assert variants(tiny_config(**CHANGES)) == variants(TrainSettings(data="x", **CHANGES)) == CHANGES
    assert "hidden_act relu2, sliding_window 8, norm_placement reordered" in tiny_config(**CHANGES).shape_text


@pytest.mark.parametrize("name", LLAMA)
def test_a_refusal_names_the_field_and_who_refuses(tiny_config, name):
    config = tiny_config(**{name: CHANGES[name]})
    require_llama(config, "a stage", [other for other in LLAMA if other != name])
    with pytest.raises(UserError, match=f"^{name} = {CHANGES[name]!r}: a stage has {name} = {LLAMA[name]!r} only"):
        require_llama(config, "a stage")


@pytest.mark.parametrize(
    ("name", "value"),
    [("hidden_act", "gelu"), ("norm_placement", "peri"), ("sliding_window", 0), ("sliding_window", True)],
)
def test_impossible_values_are_refused_by_name(tiny_config, name, value):
    with pytest.raises(ConfigError, match=f"{name} = {value!r}"):
        tiny_config(**{name: value})
    with pytest.raises(UserError, match=f"{name} = {value!r}"):
        TrainSettings(data="x", **{name: value})


def test_settings_reach_the_model_and_a_named_shape_does_not_lose_them():
    config = TrainSettings(data="x", model="tiny", **CHANGES).llama_config(64)
    assert variants(config) == CHANGES and config.hidden_size == 16
    with pytest.raises(UserError, match="hidden_act = 'relu2' cannot be combined with init_from"):
        TrainSettings(data="x", init_from="run", hidden_act="relu2")
