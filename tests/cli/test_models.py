"""Which files `--model` means, above all the folders of runs."""

import os
import shutil

import pytest

from nano_llama.cli.common import Output, Screen
from nano_llama.cli.models import find_tokenizer, locate_model
from nano_llama.core.errors import FormatError, UserError

QUIET = Screen(Output(quiet=True))


@pytest.fixture
def run_folder(tmp_path, tiny_model):
    """A run that was killed: no weights of its own, two checkpoints."""
    folder = tmp_path / "run"
    for step in (10, 20):
        checkpoint = folder / "checkpoints" / f"step-{step:08d}"
        shutil.copytree(tiny_model, checkpoint)
        (checkpoint / "state.json").write_text("{}")
    for name in ("config.json", "tokenizer.json"):
        shutil.copy(tiny_model / name, folder / name)
    (folder / "train.json").write_text("{}")
    return folder


def test_a_model_is_itself(tiny_model):
    assert locate_model(str(tiny_model), QUIET) == tiny_model


def test_an_unfinished_run_gives_its_newest_checkpoint(run_folder, capsys):
    assert locate_model(str(run_folder), Screen()).name == "step-00000020"
    assert "step-00000020" in capsys.readouterr().err


def test_a_finished_run_is_a_model(run_folder, tiny_model):
    shutil.copy(tiny_model / "model.safetensors", run_folder)
    assert locate_model(str(run_folder), QUIET) == run_folder


def test_a_run_without_a_checkpoint(run_folder):
    shutil.rmtree(run_folder / "checkpoints")
    with pytest.raises(UserError, match="no weights yet") as caught:
        locate_model(str(run_folder), QUIET)
    assert "--resume" in caught.value.hint


def test_generate_from_a_killed_run(cli, run_folder):
    pytest.importorskip("torch")
    assert cli("generate", "--model", run_folder, "--prompt", "the", "--max-tokens", 2).code == 0


@pytest.mark.parametrize("name", ["", "no/such/model/anywhere", "./nowhere"])
def test_no_model(name):
    with pytest.raises(UserError):
        locate_model(name, QUIET)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are Unix's")
def test_a_pipe_as_a_model_does_not_block(cli, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for words in (("info",), ("generate", "--prompt", "x", "--model"), ("verify", "--model")):
        done = cli(*words, tmp_path / "pipe")
        assert done.code == 2
        assert "neither a file nor a folder" in done.err


def test_a_missing_tokenizer_is_a_remark_and_a_damaged_one_an_error(tiny_model, tmp_path, capsys):
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(FormatError):
        find_tokenizer(folder, Screen())
    (folder / "tokenizer.json").unlink()
    assert find_tokenizer(folder, Screen()) is None
    assert "Without a tokenizer" in capsys.readouterr().err
