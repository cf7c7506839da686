"""The names of the public face, and that importing them costs little: no torch until it is needed."""

import subprocess
import sys

import pytest

import nano_llama


def modules_after(statement: str) -> set[str]:
    script = f"import sys; {statement}; print(*(name for name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_every_name_has_its_home():
    for name in nano_llama.__all__:
        assert getattr(nano_llama, name) is not None
    assert dir(nano_llama) == sorted(nano_llama.__all__)
    with pytest.raises(AttributeError, match="Llm"):
        nano_llama.Llm  # noqa: B018


def test_importing_the_package_imports_nothing_heavy():
    heavy = {"torch", "numpy", "numba", "transformers", "tokenizers", "matplotlib"}
    assert not modules_after("import nano_llama") & heavy


@pytest.mark.parametrize(
    "statement",
    [
        "from nano_llama import LlamaConfig, Tokenizer, SamplingParams",
        "import nano_llama.vol1_numpy",
        "import nano_llama.formats, nano_llama.data",
    ],
)
def test_core_and_volume_1_work_without_torch(statement):
    assert not modules_after(statement) & {"torch", "numba", "transformers"}
