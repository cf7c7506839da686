"""The line that installs an extra works where the package came from."""

import json
from importlib import metadata

import pytest

from nano_llama.core import errors


def test_a_clone_is_installed_from_its_path(monkeypatch):
    root = errors.Path(errors.__file__).resolve().parents[2]
    monkeypatch.chdir(root)
    assert errors.install_command("verify") == 'pip install -e ".[verify]"'
    monkeypatch.chdir("/")
    assert errors.install_command("verify") == f'pip install -e "{root}[verify]"'


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        (None, "nano-llama-engine[verify]"),
        ({"url": "file:///src/x", "dir_info": {}}, "nano-llama-engine[verify] @ file:///src/x"),
        (
            {"url": "https://host/x.git", "vcs_info": {"vcs": "git", "commit_id": "1"}},
            "nano-llama-engine[verify] @ git+https://host/x.git",
        ),
    ],
)
def test_elsewhere_it_names_where_the_package_came_from(monkeypatch, tmp_path, origin, expected):
    class Installed:
        def read_text(self, name):
            return json.dumps(origin) if origin else None

    monkeypatch.setattr(errors, "__file__", str(tmp_path / "site-packages" / "nano_llama" / "core" / "errors.py"))
    monkeypatch.setattr(metadata, "distribution", lambda name: Installed())
    assert errors.install_command("verify") == f'pip install "{expected}"'


def test_without_any_metadata_it_names_the_package(monkeypatch, tmp_path):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(errors, "__file__", str(tmp_path / "a" / "b" / "c.py"))
    monkeypatch.setattr(metadata, "distribution", missing)
    assert errors.install_command("eval") == 'pip install "nano-llama-engine[eval]"'
