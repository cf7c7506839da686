"""A GGUF as a model: names, row order, dequantized numbers, and round trips that keep every stored bit."""

from functools import partial

import numpy as np
import pytest

from nano_llama.core.errors import FormatError, UserError
from nano_llama.core.names import K_PROJ, Q_PROJ, UP_PROJ, layer_name, parameter_shapes
from nano_llama.formats import GGUFFile, open_weights, read_config, save_gguf, save_hf
from nano_llama.formats.gguf_names import from_gguf, rows_from_gguf, rows_to_gguf, to_gguf
from nano_llama.formats.gguf_quants import dequantize, quantize
from nano_llama.formats.gguf_writer import PlannedTensor, write_gguf
from nano_llama.formats.quantized import save_quantized
from nano_llama.tokenizer import Tokenizer

gguf = pytest.importorskip("gguf")


def wide(tiny_config, **changes):
    """A tiny config whose rows are whole blocks of every type."""
    return tiny_config(hidden_size=256, intermediate_size=512, num_attention_heads=4, num_key_value_heads=2, **changes)


@pytest.mark.parametrize("tied", [True, False])
def test_names_agree_with_the_library_s_table(tiny_config, tied):
    config = tiny_config(tied=tied)
    table = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name in parameter_shapes(config):
        theirs = to_gguf(name)
        assert theirs == table.get_name(name.removesuffix(".weight")) + ".weight"
        assert from_gguf(theirs) == name
    for unknown in ("model.layers.01.mlp.up_proj.weight", "blk.0.attn_q.bias", "x", "model.layers.0.mlp.up_proj.bias"):
        assert to_gguf(unknown) is None
        assert from_gguf(unknown) is None


def test_row_orders_are_inverse_and_pair_neighbours():
    assert rows_to_gguf(8, 4).tolist() == [0, 2, 1, 3, 4, 6, 5, 7]  # a0 a1 b0 b1 -> a0 b0 a1 b1
    there, back = rows_to_gguf(48, 12), rows_from_gguf(48, 12)
    assert np.array_equal(np.arange(48)[there][back], np.arange(48))


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("attention", ["mha", "gqa", "mqa"])
def test_float_weights_survive_the_round_trip(tmp_path, tiny_config, random_weights, attention, dtype):
    config = tiny_config(attention, tied=attention == "gqa")
    weights = random_weights(config)
    save_gguf(tmp_path / "m.gguf", config, weights, dtype=dtype)
    with open_weights(tmp_path / "m.gguf") as found:
        assert set(found) == set(weights)
        for name, array in weights.items():
            assert found.dtype_name(name) == ("F32" if array.ndim == 1 else dtype)
            assert np.array_equal(found[name], array.astype(found[name].dtype)), name


def test_rows_lie_in_the_file_as_llama_cpp_wants_them(tmp_path, tiny_config, random_weights):
    """The permutation written out as transformers' and llama.cpp's own conversion scripts do it."""
    config = tiny_config("gqa")
    weights = random_weights(config)
    save_gguf(tmp_path / "m.gguf", config, weights, dtype="F32")
    file = GGUFFile(tmp_path / "m.gguf")
    for part, heads in (("q", 6), ("k", 2)):
        hf = weights[f"model.layers.1.self_attn.{part}_proj.weight"]
        wanted = hf.reshape(heads, 2, len(hf) // heads // 2, -1).swapaxes(1, 2).reshape(hf.shape)
        assert np.array_equal(file.blocks(f"blk.1.attn_{part}.weight").view("<f4"), wanted)


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "Q4_1"])
def test_quantized_weights_come_back_as_the_library_unpacks_them(tmp_path, tiny_config, random_weights, kind):
    config = wide(tiny_config)
    weights = random_weights(config)
    save_gguf(tmp_path / "m.gguf", config, weights, dtype=kind)
    found = open_weights(tmp_path / "m.gguf")
    for name, array in weights.items():
        stored = (
            "F32" if array.ndim == 1 else "Q8_0" if name in ("lm_head.weight", "model.embed_tokens.weight") else kind
        )
        assert found.dtype_name(name) == stored, name
        if array.ndim == 2:
            wanted = gguf.GGMLQuantizationType[stored]  # rows are quantized one by one, so their order is free
            array = gguf.quants.dequantize(gguf.quants.quantize(array, wanted), wanted)
        assert found[name].dtype == np.float32
        assert np.array_equal(found[name], array), name


def test_raw_blocks_with_their_row_order_are_the_tensor(tmp_path, tiny_config, random_weights):
    config = wide(tiny_config)
    save_gguf(tmp_path / "m.gguf", config, random_weights(config), dtype="Q4_0")
    found = open_weights(tmp_path / "m.gguf")
    for name in found:
        raw, order = found.raw(name), found.row_order(name)
        assert (order is not None) == ("q_proj" in name or "k_proj" in name)
        numbers = dequantize(raw.kind, raw.blocks if order is None else raw.blocks[order])
        assert np.array_equal(numbers.reshape(raw.shape), found[name]), name


MIXED = ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K"]


@pytest.fixture
def mixed(tmp_path, tiny_config, random_weights):
    """A GGUF in which every type occurs, also those that we only read (their blocks: any bits with finite scales)."""
    config = wide(tiny_config, num_hidden_layers=2)
    save_gguf(tmp_path / "plain.gguf", config, random_weights(config), dtype="F32")
    plain, plan, rng = GGUFFile(tmp_path / "plain.gguf"), [], np.random.default_rng(3)
    matrices = [name for name, info in plain.tensors.items() if len(info.shape) == 2]
    kinds = {name: MIXED[index % len(MIXED)] for index, name in enumerate(matrices)}
    for name, info in plain.tensors.items():
        kind = kinds.get(name, "F32")
        numbers = plain.blocks(name).view("<f4")
        if kind in ("F32", "F16", "BF16"):
            blocks = gguf.quants.quantize(numbers, gguf.GGMLQuantizationType[kind])
        elif kind in ("Q8_0", "Q4_0", "Q4_1"):
            blocks = quantize(kind, numbers)
        else:
            numbers_per, nbytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
            blocks = rng.integers(0, 0x3C, (info.shape[0], info.shape[1] // numbers_per * nbytes), dtype=np.uint8)
        plan.append(PlannedTensor(name, kind, info.shape, lambda blocks=blocks: blocks))
    write_gguf(tmp_path / "mixed.gguf", plain.metadata, plan)
    return tmp_path / "mixed.gguf"


def test_keep_copies_every_stored_block(tmp_path, mixed):
    with open_weights(mixed) as weights:
        assert {weights.dtype_name(name) for name in weights} == set(MIXED)
        save_gguf(tmp_path / "again.gguf", read_config(mixed), weights, dtype="keep")
    first, second = GGUFFile(mixed), GGUFFile(tmp_path / "again.gguf")
    assert first.tensors.keys() == second.tensors.keys()
    for name, info in first.tensors.items():
        assert (second.tensors[name].kind, second.tensors[name].shape) == (info.kind, info.shape)
        assert np.array_equal(second.blocks(name), first.blocks(name)), name


def test_gguf_to_folder_to_gguf_keeps_every_number(tmp_path, mixed):
    with open_weights(mixed) as weights:
        save_hf(tmp_path / "hf", read_config(mixed), weights)
        save_gguf(tmp_path / "f32.gguf", read_config(tmp_path / "hf"), open_weights(tmp_path / "hf"), dtype="F32")
        again = open_weights(tmp_path / "f32.gguf")
        for name in weights:
            assert np.array_equal(again[name], weights[name].astype(np.float32)), name


def test_keep_of_a_folder_keeps_its_types(tmp_path, tiny_config, random_weights):
    config = tiny_config()
    save_hf(tmp_path / "hf", config, random_weights(config), dtype="BF16")
    save_gguf(tmp_path / "m.gguf", config, open_weights(tmp_path / "hf"), dtype="keep")
    found = open_weights(tmp_path / "m.gguf")
    assert found.dtype_name("lm_head.weight") == "BF16"
    assert found.dtype_name("model.norm.weight") == "F32"  # llama.cpp multiplies by float32 norms only


@pytest.mark.filterwarnings("ignore:The tokenizer has 2 tokens")
def test_metadata_of_the_tokenizer_is_copied(tmp_path, tiny_config, random_weights):
    config = tiny_config()
    words = {
        "tokenizer.ggml.tokens": ["a", "b"],
        "tokenizer.ggml.scores": np.array([0.5, 1], np.float32),
        "general.name": "x",
    }
    save_gguf(tmp_path / "m.gguf", config, random_weights(config), words)
    metadata = GGUFFile(tmp_path / "m.gguf").metadata
    assert metadata["tokenizer.ggml.tokens"] == ["a", "b"]
    assert metadata["tokenizer.ggml.scores"].dtype == np.float32
    assert metadata["general.name"] == "m"


def test_a_copy_keeps_its_source_s_words_about_itself(tmp_path, tiny_config, random_weights):
    config = tiny_config()
    save_gguf(tmp_path / "m.gguf", config, random_weights(config), name="Tiny")
    first = GGUFFile(tmp_path / "m.gguf")
    infos = first.tensors.values()
    plan = [PlannedTensor(info.name, info.kind, info.shape, partial(first.blocks, info.name)) for info in infos]
    words = {"general.license": "apache-2.0", "general.tags": ["en", "fr"], "general.alignment": 32}
    write_gguf(tmp_path / "n.gguf", {**first.metadata, **words}, plan)
    save_gguf(tmp_path / "copy.gguf", config, open_weights(tmp_path / "n.gguf"), dtype="F32")
    copy = GGUFFile(tmp_path / "copy.gguf").metadata
    assert (copy["general.name"], copy["general.license"], copy["general.tags"]) == (
        "Tiny",
        "apache-2.0",
        ["en", "fr"],
    )
    assert copy["general.file_type"] == 0
    assert "general.alignment" not in copy


def test_a_character_level_tokenizer_is_refused(tmp_path, tiny_config, random_weights):
    with pytest.raises(UserError, match="'char', only BPE"):
        save_gguf(tmp_path / "m.gguf", tiny_config(), random_weights(tiny_config()), Tokenizer.train_char("abc"))
    assert not list(tmp_path.iterdir())


def test_a_width_that_is_not_whole_blocks_is_refused(tmp_path, tiny_config, random_weights):
    with pytest.raises(UserError, match=r"q_proj.* 48 .*Q4_0|embed_tokens.* 48 .*Q8_0"):
        save_gguf(tmp_path / "m.gguf", tiny_config(), random_weights(tiny_config()), dtype="Q4_0")


def test_an_unknown_type_is_refused(tmp_path, tiny_config, random_weights):
    with pytest.raises(UserError, match="Q3_K"):
        save_gguf(tmp_path / "m.gguf", tiny_config(), random_weights(tiny_config()), dtype="Q3_K")


@pytest.mark.parametrize(
    ("extra", "hint"),
    [
        ("blk.0.attn_q.bias", "Biases"),
        ("blk.0.ffn_gate_exps.weight", "experts"),
        ("blk.0.attn_q_norm.weight", "converted"),
    ],
)
def test_tensors_of_another_model_are_refused_by_name(tmp_path, tiny_config, random_weights, extra, hint):
    config = tiny_config()
    save_gguf(tmp_path / "m.gguf", config, random_weights(config), dtype="F32")
    file = GGUFFile(tmp_path / "m.gguf")
    plan = [
        PlannedTensor(name, "F32", info.shape, lambda name=name: file.blocks(name))
        for name, info in file.tensors.items()
    ]
    plan.append(PlannedTensor(extra, "F32", (8,), lambda: np.zeros(8, np.float32)))
    write_gguf(tmp_path / "n.gguf", file.metadata, plan)
    with pytest.raises(FormatError, match=extra) as caught:
        open_weights(tmp_path / "n.gguf")
    assert hint in str(caught.value)


def test_the_real_model_s_numbers_are_the_library_s(smollm2, smollm2_reader):
    weights = open_weights(smollm2)
    assert len(weights) == 272
    for tensor in smollm2_reader.tensors:
        wanted = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        name = from_gguf(tensor.name)
        order = weights.row_order(name)
        assert np.array_equal(weights[name], wanted if order is None else wanted[order]), name


@pytest.mark.slow  # transformers unpacks all tensors of a real model, in Python
def test_the_real_model_s_tensors_are_transformers_own(smollm2):
    """transformers unpacks the file and undoes the row order with code of its own."""
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(smollm2.parent, gguf_file=smollm2.name)
    weights = open_weights(smollm2)
    for name, tensor in theirs.state_dict().items():
        if name != "lm_head.weight":
            assert np.array_equal(weights[name], tensor.numpy()), name


def test_a_quantized_folders_blocks_are_kept(tmp_path, tiny_config, random_weights):
    """Bit for bit, q and k with their rows in GGUF's order: not dequantized and quantized again."""
    config = tiny_config(hidden_size=96, intermediate_size=64)
    kinds = {layer_name(0, Q_PROJ): "Q4_1", layer_name(1, K_PROJ): "Q8_0", layer_name(1, UP_PROJ): "Q4_0"}
    save_quantized(tmp_path / "q", config, random_weights(config), kinds)
    with open_weights(tmp_path / "q") as before:
        save_gguf(tmp_path / "m.gguf", config, before, dtype="keep")
        with open_weights(tmp_path / "m.gguf") as after:
            for name in before:
                assert after.dtype_name(name) == kinds.get(name, "F32")
                np.testing.assert_array_equal(after[name], before[name], err_msg=name)
            for name in kinds:
                blocks, order = after.raw(name).blocks, after.row_order(name)
                ours = blocks if order is None else blocks[order]
                np.testing.assert_array_equal(ours, before.raw(name).blocks, err_msg=name)
