"""`completion`: bash completes commands, flags, choices and files with the script; the others hold the same words."""

import shutil
import subprocess

import pytest

from nano_llama.cli import COMMANDS

bash = pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    from nano_llama.cli.completion import finished, whole_app

    file = tmp_path_factory.mktemp("shell") / "script.bash"
    file.write_text(finished(whole_app(COMMANDS).generate_completion(shell="bash"), "bash"))
    return file


def completed(script, *words):
    """What bash offers for the last of these words."""
    typed = " ".join(f"'{word}'" for word in ("nano-llama", *words))
    code = f"source {script}; COMP_WORDS=({typed}); COMP_CWORD={len(words)}; _nano_llama; echo ${{COMPREPLY[*]}}"
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split()


@bash
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["tr"], ["train"]),
        (["train", "--optimiz"], ["--optimizer"]),
        (["generate", "--prom"], ["--prompt"]),
        (["export", "--format", ""], ["hf", "pth", "gguf"]),
        (["completion", ""], ["bash", "zsh", "fish"]),
        (["chat", "no-such"], []),
    ],
)
def test_bash_completes(script, words, offered):
    assert completed(script, *words) == offered


@bash
def test_bash_offers_every_command_and_falls_back_to_files(script):
    assert {*COMMANDS} <= {*completed(script, "")}
    shown = subprocess.run(
        ["bash", "-c", f"source {script}; complete -p nano-llama"], capture_output=True, text=True, check=True
    )
    assert "-o default" in shown.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_s_script_knows_the_commands_and_their_flags(cli, shell):
    done = cli("completion", shell)
    assert (done.code, done.err) == (0, "")
    for name in COMMANDS:
        assert name in done.out
    for flag in ("max-tokens", "optimizer", "format"):
        assert flag in done.out
    if shell == "zsh":
        models = [line for line in done.out.splitlines() if line.strip().startswith("'*--model[")]
        assert models and all(line.endswith(":model:_files' \\") for line in models)
        assert "compdef _cyclopts_nano-llama nano-llama" in done.out, "it may be sourced"


def test_another_shell_is_refused(cli):
    done = cli("completion", "tcsh")
    assert done.code == 2
    assert "tcsh" in done.err and "fish" in done.err


def test_what_is_not_parsed_is_not_asked_for(cli):
    assert "completion needs SHELL." in cli("completion").err
    assert "--commands" not in cli("completion", "--help").out
