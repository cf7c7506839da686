"""Names of version 0.1: the same objects as under the new names, and no more of them than there were."""

import importlib
import subprocess
import sys

import pytest

from nano_llama.moved import MOVED, new_name


@pytest.mark.parametrize("old", MOVED)
def test_an_old_name_is_the_same_module(old):
    module = importlib.import_module(MOVED[old])
    spec = module.__spec__
    sys.modules.pop(old, None)
    with pytest.warns(DeprecationWarning, match="is now"):
        assert importlib.import_module(old) is module
    assert module.__spec__ is spec and module.__name__ == MOVED[old]


def test_what_outside_tests_import_is_there_in_a_fresh_process():
    script = """
from nano_llama.core.formats import open_weights, read_config
from nano_llama.core.data.readers import read_documents
from nano_llama.core.data.sources import open_source
from nano_llama.core.data.prepare import prepare
from nano_llama.core.tokenizer.gguf import from_metadata, tokenizer_to_gguf
from nano_llama.vol1_numpy.ops.tables import PLAIN
import nano_llama.core.training.settings as old, nano_llama.training.settings as new
import nano_llama.formats
assert old.TrainSettings is new.TrainSettings and open_weights is nano_llama.formats.open_weights
"""
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize("old", ["core.training.settings", "core.data.readers", "core.formats.kinds"])
def test_a_submodule_under_an_old_name_is_no_second_copy(old):
    """In a fresh process, in which nothing of it has been imported under either name."""
    old = f"nano_llama.{old}"
    script = f"""
import sys, warnings
warnings.simplefilter("error")
import nano_llama.core
try:
    import {old}
except DeprecationWarning:
    warnings.simplefilter("ignore")
else:
    raise AssertionError("no warning")
import {old}, {new_name(old)}
assert sys.modules["{old}"] is sys.modules["{new_name(old)}"]
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_what_never_was_is_missing_as_usual():
    assert new_name("nano_llama.core.rope") is None and new_name("nano_llama.core.database") is None
    with pytest.raises(ModuleNotFoundError, match=r"nano_llama\.data\.nothing"):
        importlib.import_module("nano_llama.core.data.nothing")
