"""Schemes: which matrix gets which kind, and what is refused."""

import pytest

from nano_llama.core.errors import UserError
from nano_llama.core.presets import model_preset
from nano_llama.formats.quantization_scheme import Scheme, bits_per_weight

CONFIG = model_preset("125m")
EMBED = "model.embed_tokens.weight"
FIRST, MIDDLE, LAST = (f"model.layers.{i}.mlp.down_proj.weight" for i in (0, 7, 29))


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("int8", {EMBED: "Q8_0", FIRST: "Q8_0", LAST: "Q8_0"}),
        ("int4", {EMBED: "Q8_0", FIRST: "Q4_1", LAST: "Q4_1"}),
        ("int4-sym,head=int4", {EMBED: "Q4_1", MIDDLE: "Q4_0"}),
        ("int4,first=int8,last=bfloat16", {FIRST: "Q8_0", MIDDLE: "Q4_1", LAST: "BF16"}),
        ("int4, *.down_proj.weight = int8", {MIDDLE: "Q8_0", "model.layers.7.mlp.up_proj.weight": "Q4_1"}),
        ("int4,model.layers.?.*=int8,first=float32", {FIRST: "F32", MIDDLE: "Q8_0", LAST: "Q4_1"}),
        ("bfloat16", {EMBED: "BF16", MIDDLE: "BF16"}),
    ],
)
def test_the_last_matching_exception_wins(text, kinds):
    found = Scheme.parse(text).kinds(CONFIG)
    assert {name: found[name] for name in kinds} == kinds
    assert all("norm" not in name for name in found)
    assert len(found) == 30 * 7 + 1


def test_an_untied_head_is_not_the_embedding():
    config = model_preset("1b")
    found = Scheme.parse("int4,head=bfloat16,embedding=int4").kinds(config)
    assert (found["lm_head.weight"], found[EMBED]) == ("BF16", "Q4_1")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("int3", "'int3' is not known"),
        ("", "'' is not known"),
        ("int4,head", "'head' is not an exception"),
        ("int4,=int8", "not an exception"),
        ("int4,middle=int8", "'middle' is not a place"),
        ("int4,*.lm_head.*=int8", "no matrix of this model matches"),
    ],
)
def test_unknown_words_are_refused(text, said):
    with pytest.raises(UserError, match=said):
        Scheme.parse(text).kinds(CONFIG)


def test_rows_that_are_not_whole_groups_stay_as_they_are_with_a_warning():
    config = model_preset("char", vocab_size=95)  # the shape of README's first training run
    with pytest.warns(UserWarning, match=r"^model\.layers\.\*\.mlp\.down_proj\.weight stays in float32.* 344 ") as told:
        kinds = Scheme.parse("int8").kinds(config)
    assert len(told) == 1
    assert {name for name, kind in kinds.items() if kind != "Q8_0"} == {
        f"model.layers.{layer}.mlp.down_proj.weight" for layer in range(config.num_hidden_layers)
    }


def test_they_are_refused_where_they_are_named_or_are_most_of_the_model():
    config = model_preset("125m", intermediate_size=40)
    with pytest.raises(UserError, match=r"down_proj.weight has rows of 40 numbers") as caught:
        Scheme.parse("int4,*.down_proj.weight=int8").kinds(config)
    assert caught.value.hint.endswith("model.layers.*.mlp.down_proj.weight=float32")
    with pytest.raises(UserError, match="rows of 40 numbers"):
        Scheme.parse("int4").kinds(model_preset("125m", hidden_size=40, num_attention_heads=5, num_key_value_heads=5))


def test_bits_per_weight_include_scales():
    assert bits_per_weight(Scheme.parse("int8").kinds(CONFIG), CONFIG) == 8.5
    layers, head = 106_168_320, 576 * 49_152
    expected = (layers * 5 + head * 8.5) / (layers + head)
    assert bits_per_weight(Scheme.parse("int4").kinds(CONFIG), CONFIG) == pytest.approx(expected)
