"""Names of training tensors, and how those of version 2 become those of today."""

from nano_llama.training.checkpoint_keys import from_prefixed, join, split


def test_a_key_is_joined_and_split():
    name = join("model.layers.0.mlp.up_proj.weight", "adamw.sums")
    assert name == "model.layers.0.mlp.up_proj.weight/adamw.sums"
    assert split(name) == ("model.layers.0.mlp.up_proj.weight", "adamw.sums")
    assert split("ema.steps") == ("", "ema.steps")


def test_what_stands_before_a_parameter_goes_behind_it():
    parameters = {"model.norm.weight", "lm_head.weight"}
    old = ["steps", "adamw.steps", "trained.lm_head.weight", "adamw.sums.model.norm.weight", "model.norm.weight/step"]
    assert from_prefixed(old, parameters) == {
        "steps": "steps",
        "adamw.steps": "adamw.steps",
        "trained.lm_head.weight": "lm_head.weight/trained",
        "adamw.sums.model.norm.weight": "model.norm.weight/adamw.sums",
        "model.norm.weight/step": "model.norm.weight/step",
    }
