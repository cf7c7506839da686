"""PEFT's files written and read back; whatever is not read, missing or too many is refused by name.

Against PEFT itself: tests/parity/test_peft.py.
"""

import json

import numpy as np
import pytest

from nano_llama.core.errors import ConfigError, FormatError, UserError
from nano_llama.core.lora import TARGETS, LoraConfig, adapter_shapes
from nano_llama.formats.peft import CONFIG, WEIGHTS, read_adapter, read_adapter_config, save_adapter_files
from nano_llama.formats.safetensors import SafetensorsFile, save_safetensors

LORA = LoraConfig(r=3, alpha=5, rslora=True, dora=True, target_modules=TARGETS)


@pytest.fixture
def written(tmp_path, tiny_config):
    rng = np.random.default_rng(0)
    tensors = {name: rng.standard_normal(shape) for name, shape in adapter_shapes(LORA, tiny_config()).items()}
    save_adapter_files(tmp_path, LORA, tensors, base_model="org/name")
    return tmp_path, tensors


def change_config(folder, **changes):
    path = folder / CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def change_weights(folder, **changes):
    """By PEFT's names; None removes a tensor."""
    tensors = {name: np.array(value) for name, value in SafetensorsFile(folder / WEIGHTS).items()} | changes
    save_safetensors(folder / WEIGHTS, {name: value for name, value in tensors.items() if value is not None})


def test_what_was_written_comes_back(written, tiny_config):
    folder, tensors = written
    adapter = read_adapter(folder, tiny_config())
    assert adapter.lora == LORA and list(adapter.tensors) == list(tensors) and adapter.base_head is None
    for name, values in tensors.items():
        np.testing.assert_array_equal(adapter.tensors[name], values, err_msg=name)
    assert json.loads((folder / CONFIG).read_text())["base_model_name_or_path"] == "org/name"


def test_a_minimal_config_has_pefts_defaults(tmp_path):
    (tmp_path / CONFIG).write_text('{"peft_type": "LORA", "target_modules": ["v_proj"]}')
    assert read_adapter_config(tmp_path) == LoraConfig(r=8, alpha=8, target_modules=("v_proj",))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("peft_type", "IA3"), ("task_type", "SEQ_CLS"), ("bias", "all"), ("fan_in_fan_out", True), ("lora_bias", True),
        ("rank_pattern", {"q_proj": 4}), ("alpha_pattern", {"q_proj": 4}), ("modules_to_save", ["lm_head"]),
        ("layers_to_transform", [0]), ("layers_to_transform", 0), ("exclude_modules", ["lm_head"]),
        ("trainable_token_indices", [3]), ("layer_replication", [[0, 2]]), ("target_parameters", ["x"]),
        ("alora_invocation_tokens", [1]), ("use_qalora", True), ("init_lora_weights", "pissa"),
        ("a_key_of_next_year", "on"),
    ],
)  # fmt: skip
def test_what_is_not_computed_is_refused_by_name(written, key, value):
    change_config(written[0], **{key: value})
    with pytest.raises(FormatError, match=key):
        read_adapter_config(written[0])


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("target_modules", ["q_proj", "embed_tokens"], "embed_tokens"), ("target_modules", None, "target_modules"),
        ("target_modules", ".*_proj", "target_modules"), ("r", "8", "r = '8'"), ("lora_alpha", -1, "alpha = -1"),
        ("use_dora", 1, "dora = 1"), ("lora_dropout", 2, "dropout = 2"),
    ],
)  # fmt: skip
def test_impossible_settings_are_refused(written, key, value, named):
    change_config(written[0], **{key: value})
    with pytest.raises(ConfigError, match=named):
        read_adapter_config(written[0])


def test_every_tensor_is_counted(written, tiny_config):
    folder, _ = written
    name = "base_model.model.model.layers.1.mlp.up_proj.lora_B.weight"
    kept = np.array(SafetensorsFile(folder / WEIGHTS)[name])
    for changes, message in (
        ({name: None}, rf"lacks {name}"),
        ({name: kept[:, :2]}, rf"{name} has shape \(88, 2\)"),
        ({name: kept.astype(np.int32)}, rf"{name} is stored as I32"),
        ({name: kept, "base_model.model.model.embed_tokens.weight": np.ones((101, 48))}, "does not use.*embed_tokens"),
    ):
        change_weights(folder, **changes)
        with pytest.raises(FormatError, match=message):
            read_adapter(folder, tiny_config())


def test_an_adapter_of_another_shape_or_setting_is_refused(written, tiny_config):
    with pytest.raises(FormatError, match="lacks"):
        read_adapter(written[0], tiny_config(num_hidden_layers=3))
    change_config(written[0], use_dora=False)
    with pytest.raises(FormatError, match=r"does not use.*lora_magnitude_vector"):
        read_adapter(written[0], tiny_config())


def test_missing_and_pickled_files_say_what_to_do(written, tmp_path, tiny_config):
    with pytest.raises(UserError, match=CONFIG):
        read_adapter(tmp_path / "nowhere", tiny_config())
    (tmp_path / WEIGHTS).rename(tmp_path / "adapter_model.bin")
    with pytest.raises(UserError, match=r"only an adapter_model\.bin"):
        read_adapter(tmp_path, tiny_config())
    (tmp_path / CONFIG).write_text("[]")
    with pytest.raises(FormatError, match="list"):
        read_adapter_config(tmp_path)


def test_saving_again_replaces_and_a_failure_leaves_no_config(written, tiny_config):
    folder, tensors = written
    other = LoraConfig(r=3, alpha=99, rslora=True, dora=True, target_modules=TARGETS)
    with pytest.raises(UserError):
        save_adapter_files(folder, other, tensors | {"lm_head.lora_A": np.ones(3, complex)})
    with pytest.raises(UserError, match=CONFIG):  # not the old weights under the new config, nor the reverse
        read_adapter(folder, tiny_config())
    save_adapter_files(folder, other, tensors)
    assert read_adapter(folder, tiny_config()).lora == other
