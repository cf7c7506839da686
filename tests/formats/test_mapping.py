"""The mapping that every format opens as, and the float types: laziness, casts, tied heads, shapes."""

import ml_dtypes
import numpy as np
import pytest

from nano_llama.core.errors import FormatError, UserError
from nano_llama.formats.dtypes import cast, dtype_name, float_name
from nano_llama.formats.mapping import Arrays, Selection, as_mapping, fit_to_config


class Counting(Arrays):
    """Remembers which tensors were read."""

    def __init__(self, arrays):
        super().__init__(arrays)
        self.read = []

    def __getitem__(self, name):
        self.read.append(name)
        return super().__getitem__(name)


def test_an_array_mapping_knows_shapes_types_and_bytes():
    mapping = as_mapping({"a": np.zeros((2, 3), np.float16), "b": np.zeros(4, ml_dtypes.bfloat16)})
    assert (mapping.shape("a"), mapping.dtype_name("a"), mapping.nbytes("a")) == ((2, 3), "F16", 12)
    assert mapping.dtype_name("b") == "BF16"
    assert as_mapping(mapping) is mapping
    with pytest.raises(UserError, match="GGUF"):
        mapping.raw("a")


def test_a_mapping_is_read_only():
    with pytest.raises(TypeError):
        as_mapping({})["a"] = np.zeros(1)  # type: ignore[index]


def test_a_selection_reads_from_where_each_tensor_lies():
    one, two = Counting({"a": np.zeros(1), "b": np.ones(1)}), Counting({"c": np.full(1, 2.0)})
    joined = Selection(one.path, {"b": one, "c": two})
    assert list(joined) == ["b", "c"]
    assert joined["c"][0] == 2
    assert (one.read, two.read) == ([], ["c"])


@pytest.mark.parametrize("spelling", ["BF16", "bf16", "bfloat16", ml_dtypes.bfloat16])
def test_float_types_in_any_spelling(spelling):
    assert float_name(spelling) == "BF16"


@pytest.mark.parametrize("unknown", ["int8", "F8", np.int32, "Q4_0"])
def test_other_types_are_refused(unknown):
    with pytest.raises(UserError):
        float_name(unknown)


def test_a_type_that_no_file_holds_is_refused():
    with pytest.raises(UserError, match="complex"):
        dtype_name(np.complex64)


def test_a_number_too_large_for_the_type_is_refused_by_name():
    with pytest.raises(UserError, match=r"w .* 70000.* F16"):
        cast("w", np.array([1.0, -70000.0], np.float32), "F16")
    assert np.isinf(cast("w", np.array([np.inf], np.float32), "F16"))  # what was infinite may stay so


def test_a_tied_head_that_equals_the_embedding_is_left_out(tiny_config, random_weights):
    config = tiny_config(tied=True)
    weights = random_weights(config)
    both = weights | {"lm_head.weight": weights["model.embed_tokens.weight"].copy()}
    assert list(fit_to_config(as_mapping(both), config)) == list(weights)


def test_a_tied_head_that_differs_is_refused(tiny_config, random_weights):
    config = tiny_config(tied=True)
    weights = random_weights(config)
    other = weights["model.embed_tokens.weight"].copy()
    other[3, 4] += 1e-6
    with pytest.raises(FormatError, match="tie_word_embeddings"):
        fit_to_config(as_mapping(weights | {"lm_head.weight": other}), config)


def test_fitting_reads_no_tensor_of_an_untied_model(tiny_config, random_weights):
    config = tiny_config()
    mapping = Counting(random_weights(config))
    fit_to_config(mapping, config)
    assert mapping.read == []


def test_stored_rope_frequencies_are_ignored(tiny_config, random_weights):
    config = tiny_config()
    extra = {"model.layers.0.self_attn.rotary_emb.inv_freq": np.zeros(4, np.float32)}
    assert set(fit_to_config(as_mapping(random_weights(config) | extra), config)) == set(random_weights(config))


@pytest.mark.parametrize("change", ["missing", "extra", "misshapen"])
def test_a_tensor_that_does_not_fit_is_named(tiny_config, random_weights, change):
    config = tiny_config()
    weights = random_weights(config)
    name = "model.layers.1.mlp.up_proj.weight"
    if change == "missing":
        del weights[name]
    elif change == "extra":
        name = "model.layers.1.mlp.up_proj.bias"
        weights[name] = np.zeros(88, np.float32)
    else:
        weights[name] = weights[name].T
    with pytest.raises(FormatError, match=name):
        fit_to_config(as_mapping(weights), config)
