"""Which weight files of a folder count: transformers is the reference, file by file and for every pair of them."""

import itertools
import json
import shutil
import warnings
from collections import OrderedDict

import numpy as np
import pytest
import torch

from nano_llama.core.errors import FormatError
from nano_llama.formats import open_weights

transformers = pytest.importorskip("transformers")
EMBED = "model.embed_tokens.weight"


def model_of(tiny_config, seed: int, tied: bool = False):
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(**{**tiny_config(tied=tied).to_hf_dict(), "initializer_range": 0.2})
    return transformers.LlamaForCausalLM(config).eval()


def save_bin(model, folder, shards: int) -> None:
    state = OrderedDict((name, tensor) for name, tensor in model.state_dict().items())
    state._metadata = model.state_dict()._metadata  # as a state dict that was saved whole has it
    names = list(state)
    if shards == 1:
        torch.save(state, folder / "pytorch_model.bin")
        return
    file_of = {name: f"pytorch_model-{1 + i % shards:05d}-of-{shards:05d}.bin" for i, name in enumerate(names)}
    for file in set(file_of.values()):
        torch.save({name: state[name] for name in names if file_of[name] == file}, folder / file)
    index = {"metadata": {"total_size": 1}, "weight_map": file_of}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))


def add(kind: str, model, folder) -> None:
    """The model's weights as files of one kind, beside what the folder holds already."""
    if kind.startswith("bin"):
        save_bin(model, folder, shards=2 if kind == "bin shards" else 1)
        return
    aside = folder.parent / f"{folder.name} {kind}"
    model.save_pretrained(aside, max_shard_size="60KB" if kind == "shards" else "1GB")
    for file in aside.glob("model*"):
        shutil.copy(file, folder)


def theirs(folder):
    return transformers.LlamaForCausalLM.from_pretrained(folder).state_dict()


KINDS = ("single", "shards", "bin", "bin shards")


@pytest.mark.parametrize("kinds", [(kind,) for kind in KINDS] + list(itertools.permutations(KINDS, 2)))
def test_the_file_that_transformers_reads_is_read(tmp_path, tiny_config, kinds):
    folder = tmp_path / "m"
    folder.mkdir()
    for seed, kind in enumerate(kinds):
        model = model_of(tiny_config, seed)
        model.config.save_pretrained(folder)
        add(kind, model, folder)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        ours = open_weights(folder)
    wanted = theirs(folder)
    assert set(ours) == set(wanted)
    for name, tensor in wanted.items():
        assert np.array_equal(ours[name], tensor.numpy()), name
    both = {"single", "shards"} <= set(kinds)
    assert any("shards of model.safetensors.index.json are not" in str(one.message) for one in said) == both


def test_a_file_that_the_config_names_is_read(tmp_path, tiny_config):
    folder = tmp_path / "m"
    model_of(tiny_config, 0).save_pretrained(folder)
    other = model_of(tiny_config, 1)
    other.save_pretrained(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "model.safetensors", folder / "better.safetensors")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"transformers_weights": "better.safetensors"}))
    assert np.array_equal(theirs(folder)[EMBED], other.state_dict()[EMBED])
    assert np.array_equal(open_weights(folder)[EMBED], other.state_dict()[EMBED].numpy())


@pytest.mark.parametrize("name", ["../other.safetensors", "gone.safetensors", 3, "a.bin", "\0.safetensors", ""])
def test_a_file_that_the_config_cannot_name_is_refused(tmp_path, tiny_config, name):
    folder = tmp_path / "m"
    model_of(tiny_config, 0).save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"transformers_weights": name}))
    with pytest.raises(FormatError, match="transformers_weights"):
        open_weights(folder)


def shards(folder):
    return sorted(folder.glob("model-*.safetensors"))


def test_a_tensor_that_only_a_shard_names_is_read(tmp_path, tiny_config):
    folder = tmp_path / "m"
    model = model_of(tiny_config, 0)
    model.save_pretrained(folder, max_shard_size="60KB")
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    file = index["weight_map"].pop("model.norm.weight")
    assert file in index["weight_map"].values()
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert np.array_equal(theirs(folder)["model.norm.weight"], model.state_dict()["model.norm.weight"])
    assert "model.norm.weight" in open_weights(folder)


@pytest.mark.parametrize("same", [True, False])
def test_a_tensor_in_two_shards(tmp_path, tiny_config, same):
    from safetensors.numpy import load_file, save_file

    folder = tmp_path / "m"
    model_of(tiny_config, 0).save_pretrained(folder, max_shard_size="60KB")
    first, last = shards(folder)[0], shards(folder)[-1]
    name, tensor = next(iter(load_file(first).items()))
    save_file(load_file(last) | {name: tensor if same else tensor + 1}, last, metadata={"format": "pt"})
    if same:
        assert np.array_equal(open_weights(folder)[name], tensor)
    else:
        with pytest.raises(FormatError, match="differs"):
            open_weights(folder)


def test_a_single_shard_names_the_folder_to_open(tmp_path, tiny_config):
    folder = tmp_path / "m"
    model_of(tiny_config, 0).save_pretrained(folder, max_shard_size="60KB")
    with pytest.raises(FormatError, match="part 1 of") as caught:
        open_weights(shards(folder)[0])
    assert str(folder) in caught.value.hint
    with pytest.raises(FormatError, match="index") as caught:
        open_weights(folder / "model.safetensors.index.json")


def test_a_hostile_bin_shard_is_refused(tmp_path, tiny_config, refuse):
    folder = tmp_path / "m"
    folder.mkdir()
    model = model_of(tiny_config, 0)
    model.config.save_pretrained(folder)
    save_bin(model, folder, shards=2)
    torch.save({"a": torch.nn.Linear(2, 2)}, folder / "pytorch_model-00002-of-00002.bin")
    refuse(folder, "calls")


# -- names that transformers understands too --------------------------------------------------------------------------


def base_model(state):
    return {name.removeprefix("model."): tensor for name, tensor in state.items() if name != "lm_head.weight"}


def wrapped(state):
    return {f"module._orig_mod.{name}": tensor for name, tensor in state.items()}


def value_head(state):
    return state | {"v_head.summary.weight": torch.zeros(1, 4), "score.weight": torch.zeros(2, 4)}


def head_only(state):
    return {name: tensor for name, tensor in state.items() if name != EMBED} | {"lm_head.weight": state[EMBED]}


CHANGES = {"base model": base_model, "value head": value_head, "the head for the embedding": head_only}


@pytest.mark.filterwarnings("ignore:.*score.weight")
@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
@pytest.mark.parametrize("change", CHANGES)
def test_other_names_for_the_same_model(tmp_path, tiny_config, change, suffix):
    from safetensors.torch import save_file

    model = model_of(tiny_config, 0, tied=True)
    model.config.save_pretrained(tmp_path)
    state = {name: tensor.clone() for name, tensor in CHANGES[change](model.state_dict()).items()}
    if suffix == ".bin":
        torch.save(state, tmp_path / "pytorch_model.bin")
    else:
        if change == "value head":
            del state["lm_head.weight"]
        save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    wanted, ours = theirs(tmp_path), open_weights(tmp_path)
    assert set(ours) == set(wanted) - {"lm_head.weight"}
    for name in ours:
        assert np.array_equal(ours[name], wanted[name].numpy()), name
        assert ours.shape(name) == ours[name].shape


def test_a_wrapper_in_front_of_every_name(tmp_path, tiny_config, same_tensors):
    from safetensors.torch import save_file

    model = model_of(tiny_config, 0)
    model.config.save_pretrained(tmp_path)
    save_file(wrapped(model.state_dict()), tmp_path / "model.safetensors")
    same_tensors(open_weights(tmp_path), {name: tensor.numpy() for name, tensor in model.state_dict().items()})


def test_an_untied_model_without_its_head_is_refused_in_words(tmp_path, tiny_config):
    model = model_of(tiny_config, 0)
    model.model.save_pretrained(tmp_path)
    with pytest.raises(FormatError, match="without its head"):
        open_weights(tmp_path)


def test_a_parameter_under_two_names_is_refused(tmp_path, tiny_config):
    from safetensors.torch import save_file

    model = model_of(tiny_config, 0)
    model.config.save_pretrained(tmp_path)
    twice = {"norm.weight": model.state_dict()["model.norm.weight"] + 1}
    save_file(dict(model.state_dict()) | twice, tmp_path / "model.safetensors")
    with pytest.raises(FormatError, match="the same parameter"):
        open_weights(tmp_path)
