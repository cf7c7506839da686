"""A run's folder: never written over, and what a resumed run may change."""

import os

import pytest

from nano_llama.core.errors import UserError
from nano_llama.training.finetune import FinetuneSettings
from nano_llama.training.model_files import WholeModel
from nano_llama.training.run_folder import MAY_CHANGE, RunFolder
from nano_llama.training.settings import TrainSettings, fields_of


class FakeTokenizer:
    def save_pretrained(self, folder):
        (folder / "tokenizer.json").write_text("{}")


@pytest.fixture
def run(tmp_path, tiny_config):
    folder = RunFolder(tmp_path / "runs" / "first")
    folder.create(TrainSettings(data="stdlib", max_steps=10), WholeModel(tiny_config(), FakeTokenizer()))
    return folder


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_an_empty_or_missing_folder_is_new_until_a_run_is_in_it(tmp_path, tiny_config, name):
    (tmp_path / "empty").mkdir()
    folder = RunFolder(tmp_path / name)
    folder.check_new()
    folder.create(TrainSettings(data="stdlib", max_steps=10), WholeModel(tiny_config(), FakeTokenizer()))
    with pytest.raises(UserError, match=name):
        folder.check_new()


def test_nothing_is_written_over(run, tmp_path):
    with pytest.raises(UserError, match="already holds a run") as error:
        run.check_new()
    assert "--resume" in error.value.hint
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("years of work")
    for path in (tmp_path / "other", tmp_path / "other" / "thesis.txt"):
        with pytest.raises(UserError, match="is not a run"):
            RunFolder(path).check_new()


def test_what_a_killed_start_left_behind_is_no_run(run):
    run.settings.unlink()  # it is written last
    with pytest.raises(UserError, match="is not a run"):
        run.check_new()
    run.lock.touch()  # it is held from the first file on
    run.check_new()


def test_where_a_process_trains_no_other_may(run):
    run.check_free()
    with run.held(), pytest.raises(UserError, match="Another process is training in") as error:
        run.check_free()
    assert "--out" in error.value.hint
    run.check_free()


def test_a_run_may_go_on_longer_but_not_become_another(run):
    assert run.resumed_settings({}) == TrainSettings(data="stdlib", max_steps=10)
    assert run.resumed_settings({"max_steps": 20, "device": "cpu"}).max_steps == 20
    assert run.resumed_settings({"max_minutes": 1.0}).max_steps is None
    with pytest.raises(UserError, match=r"started with lr = 0.002, not 0.1"):
        run.resumed_settings({"lr": 0.1})
    with pytest.raises(UserError, match="unknown setting"):
        run.resumed_settings({"learning_rate": 0.1})


def test_where_no_run_is_nothing_can_be_resumed(tmp_path):
    with pytest.raises(UserError, match="has no run to resume"):
        RunFolder(tmp_path).resumed_settings({})


def test_how_long_ago_a_run_was_begun(tmp_path):
    folder = RunFolder(tmp_path / "run")
    assert not folder.begun_within(1e9), "never"
    folder.path.mkdir()
    folder.settings.write_text("{}")
    assert folder.begun_within(60)
    an_hour_ago = folder.settings.stat().st_mtime - 3600
    os.utime(folder.settings, (an_hour_ago, an_hour_ago))
    assert folder.begun_within(3700) and not folder.begun_within(3500)
    assert [path.name for path in folder.path.iterdir()] == ["train.json"]


def test_what_a_resumed_run_may_change_are_settings():
    assert set(MAY_CHANGE) <= set(fields_of(FinetuneSettings))
