"""The README is right: its commands exist with the flags it shows, its Python runs, its links lead somewhere."""

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
DOCUMENTS = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "docs/serving.md",
    "docs/finetuning.md",
    "docs/pictures.md",
    *(f"docs/start/{role}.md" for role in ("learner", "engineer", "researcher", "teacher")),
]


def shell_lines() -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", README, re.S)
    joined = "\n".join(blocks).replace("\\\n", " ")
    return [line.split("#")[0].strip() for line in joined.splitlines() if "nano-llama" in line.split("#")[0]]


def nano_llama_calls() -> list[list[str]]:
    calls = []
    for line in shell_lines():
        for part in re.split(r"&&|\|", line):
            words = shlex.split(part)
            if words and words[0].endswith("nano-llama"):
                calls.append(words[1:])
    return calls


def test_the_two_commands_are_marked_and_one_line_each():
    for marker in ("quickstart", "tests"):
        block = re.search(rf"<!-- {marker} -->\s*```bash\n(.+?)\n```", README, re.S)
        assert block, f"README lacks the command marked {marker}"
        assert "\n" not in block.group(1)


@pytest.mark.parametrize("call", nano_llama_calls(), ids=" ".join)
def test_every_flag_shown_exists(call, capsys):
    from nano_llama.cli import COMMANDS, main

    if call[0].startswith("-"):
        assert main([call[0]]) == 0
        return
    assert call[0] in COMMANDS
    assert main([call[0], "--help"]) == 0
    shown = capsys.readouterr().out.replace("[no-]", "")
    for word in call[1:]:
        if word.startswith("--"):
            assert word.split("=")[0] in shown, f"{call[0]} has no flag {word}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_relative_links_resolve(document):
    text = (ROOT / document).read_text()
    for target in re.findall(r"\]\((?!https?://|#|mailto:)([^)#]+)", text):
        assert ((ROOT / document).parent / target).exists(), f"{document} links to {target}"


def test_extras_named_in_the_readme_exist():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for group in re.findall(r"\.\[([\w,]+)\]|nano-llama-engine\[([\w,]+)\]", README):
        for extra in "".join(group).split(","):
            assert extra in extras, extra


def test_the_leaderboard_is_generated():
    done = subprocess.run([sys.executable, ROOT / "bench" / "leaderboard.py", "--check"])
    assert done.returncode == 0, "run  python bench/leaderboard.py"


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 130


def test_versions_agree():
    import nano_llama

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == nano_llama.__version__
    assert f"version: {nano_llama.__version__}" in (ROOT / "CITATION.cff").read_text()
