"""`nano-llama serve`: its options, and a server in a process of its own that is asked, and ends on SIGTERM."""

import json
import signal
import subprocess
import sys
import urllib.request

import pytest

from nano_llama.cli.serve import model_id, settings_of
from nano_llama.core.errors import UserError


@pytest.mark.parametrize(
    ("model", "name"),
    [("a/SmolLM2.Q4_1.gguf", "SmolLM2.Q4_1"), ("org/name", "name"), ("runs/x/", "x"), ("nano_gpt", "nano_gpt"),
     ("v0.1", "v0.1"), ("m/model.safetensors", "model")],
)  # fmt: skip
def test_the_model_s_id_is_its_name_without_the_ending(model, name):
    assert model_id(model) == name


def test_the_current_folder_has_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert model_id(".") == tmp_path.name


def test_limits_by_name():
    settings = settings_of(["max_body_bytes=5", "header_seconds=0.5", "max_waiting_tokens=7"], port=1)
    assert (settings.max_body_bytes, settings.header_seconds, settings.max_waiting_tokens) == (5, 0.5, 7)


@pytest.mark.parametrize(
    "entry", ["nonsense=1", "max_body_bytes", "max_body_bytes=", "max_body_bytes=x", "port=5", "host=x"]
)
def test_unknown_limits_and_values_are_refused(entry):
    with pytest.raises(UserError, match=f"--limit {entry}"):
        settings_of([entry], port=1)


def test_what_is_no_adapter_is_refused_by_name(cli, tiny_model):
    run = cli("serve", "--model", tiny_model, "--adapter", "mine=folder")
    assert run.code == 2 and "No adapter at folder" in run.err
    run = cli("serve", "--model", tiny_model, "--adapter", "folder")
    assert run.code == 2 and "NAME=DIR" in run.err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--host", "192.0.2.1"], "--host"),
        (["--api-key-file", "nowhere"], "nowhere"),
        (["--limit", "x=1"], "max_body"),
        (["--replay", "nowhere"], "nowhere cannot be read"),
        (["--replay", "nowhere", "--no-page"], "on the page"),
    ],
)
def test_what_cannot_be_honoured_is_said_before_the_model_is_loaded(cli, tiny_model, options, says):
    run = cli("serve", "--model", tiny_model, "--port", 0, *options)
    assert run.code == 2 and says in run.err


def test_a_server_of_its_own(tiny_model):
    command = [sys.executable, "-m", "nano_llama", "serve", "--model", str(tiny_model), "--port", "0", "--json"]
    with subprocess.Popen([*command, "--engine", "numpy"], stdout=-1, stderr=-1, text=True) as process:
        facts = json.loads(process.stdout.readline())
        assert facts["model"] == "tiny" and facts["max_waiting"] >= 128
        with urllib.request.urlopen(f"{facts['url']}/health") as answer:
            assert json.load(answer)["status"] == "ok"
        with urllib.request.urlopen(f"{facts['url']}/inspect/model") as answer:
            assert "/inspect/replay" in json.load(answer)["endpoints"]
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=20)
        assert process.returncode == 0
        events = [json.loads(line)["event"] for line in log.splitlines()]
        assert events == ["ready", "request", "request", "shutdown"]


@pytest.mark.parametrize(("flags", "page"), [([], True), (["--no-page"], False)])
def test_the_page_is_there_unless_it_is_switched_off(cli, tiny_model, monkeypatch, flags, page):
    def given(_limits, **settings):
        raise UserError(f"page={settings['page']}")

    monkeypatch.setattr("nano_llama.cli.serve.settings_of", given)
    assert f"page={page}" in cli("serve", "--model", tiny_model, *flags).err


def test_ctrl_c_is_answered_as_everywhere(tiny_model):
    command = [
        sys.executable,
        "-m",
        "nano_llama",
        "serve",
        "--model",
        str(tiny_model),
        "--port",
        "0",
        "--engine",
        "numpy",
    ]
    with subprocess.Popen(command, stdout=-1, stderr=-1, text=True) as process:
        assert "tiny" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, log = process.communicate(timeout=20)
        assert process.returncode == 130 and "Stopped by Ctrl-C" in log
