"""Known mistakes of flash attention, planted one by one: the check of test_flash_attention.py must notice each.

A mistake is a replacement in the kernels' source. Most of them were made: in Triton's tutorial, whose backward ignored
`causal`, and in kernels whose causal mask was aligned to the top left or whose group of heads was another.
"""

import importlib.util
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from helpers.flash_attention import Case, check
from nano_llama.vol2_torch import kernels

FORWARD, BACKWARD = "flash_forward", "flash_backward"

SHORT = Case(T=20, S=45)
GROUPS = Case(H=4, G=2, T=40, S=40)
CAUSAL = Case(T=70, S=70)
FREE = CAUSAL.but(causal=False)
UNSEEN = Case(T=40, S=25)
PACKED = CAUSAL.but(documents="ascending")


class Fault(NamedTuple):
    file: str
    right: str
    wrong: str
    shown_by: Case


NOT_EQUAL = "Not equal to tolerance"  # assert_allclose's words

FAULTS = {
    "causal, aligned to the top left": Fault(FORWARD, "rows[:, None] + (S - T)", "rows[:, None]", SHORT),
    "dk and dv, aligned to the top left": Fault(BACKWARD, "rows[None, :] + (S - T)", "rows[None, :]", SHORT),
    "not causal where it should be": Fault(FORWARD, "if CAUSAL:\n        keep", "if False:\n        keep", SHORT),
    "causal where it should not be": Fault(FORWARD, "if CAUSAL:\n        keep", "if True:\n        keep", FREE),
    "the diagonal unmasked": Fault(FORWARD, "begin + S - T + 1, 0", "begin + S - T + BLOCK_S, 0", CAUSAL),
    "a tile of keys too few": Fault(FORWARD, "tl.minimum(begin + BLOCK_T, T) + S - T", "begin + S - T", SHORT),
    "dk and dv not causal": Fault(
        BACKWARD, "if CAUSAL:\n                keep", "if False:\n                keep", SHORT
    ),
    "dk and dv always causal": Fault(BACKWARD, "if CAUSAL:  # key s", "if True:  # key s", FREE),
    "the diagonal unmasked in dk and dv": Fault(BACKWARD, "begin + BLOCK_S - 1 + T - S", "begin + T - S", CAUSAL),
    "another key head in the forward": Fault(FORWARD, "(head // GROUP) * k_head", "(head % 2) * k_head", GROUPS),
    "another value head in dq": Fault(BACKWARD, "(head // GROUP) * v_head", "(head % 2) * v_head", GROUPS),
    "another group in dk and dv": Fault(BACKWARD, "group * GROUP + member", "group + member * 2", GROUPS),
    "dk and dv of a group's first head": Fault(BACKWARD, "range(GROUP)", "range(1)", GROUPS),
    "the output is not rescaled": Fault(FORWARD, "acc * old[:, None]", "acc", FREE),
    "the sum is not rescaled": Fault(FORWARD, "total * old", "total", FREE),
    "lse in base e": Fault(FORWARD, "tl.log2(total)", "tl.log(total)", FREE),
    "lse without the maximum": Fault(FORWARD, "top + tl.log2", "tl.log2", FREE),
    "powers of e in dq": Fault(BACKWARD, "tl.exp2(s * scale - row_lse[:", "tl.exp(s * scale - row_lse[:", FREE),
    "powers of e in dk and dv": Fault(BACKWARD, "tl.exp2(s * scale - row_lse[N", "tl.exp(s * scale - row_lse[N", FREE),
    "keys beyond the end": Fault(FORWARD, "columns[None, :] < S", "columns[None, :] >= 0", FREE),
    "the last queries left out of dk": Fault(
        BACKWARD, "free, end = 0, 0, T", "free, end = 0, 0, T // BLOCK_T * BLOCK_T", FREE
    ),
    "NaN where nothing is seen": Fault(FORWARD, 'tl.where(new == float("-inf"), 0.0, new)', "new", UNSEEN),
    "0 / 0 where nothing is seen": Fault(FORWARD, "tl.where(empty, 1.0, total)", "total", UNSEEN),
    "dk without its scale": Fault(BACKWARD, "dk_acc * score_scale", "dk_acc", FREE),
    "log2 e in dk": Fault(BACKWARD, "dk_acc * score_scale", "dk_acc * scale", FREE),
    "dq without its scale": Fault(BACKWARD, "acc * score_scale, K, BLOCK_T", "acc, K, BLOCK_T", FREE),
    "dq without delta": Fault(BACKWARD, "dp - row_delta[:, None]", "dp", FREE),
    "dk without delta": Fault(BACKWARD, "dp - row_delta[None, :]", "dp", FREE),
    "documents see each other": Fault(FORWARD, "if PACKED:\n        column", "if False:\n        column", PACKED),
    "documents see each other in dk": Fault(
        BACKWARD, "PACKED:\n                row", "False:\n                row", PACKED
    ),
    "a document's last token left out": Fault(FORWARD, "at + 1, begin", "at, begin", PACKED.but(causal=False)),
    "p rounded to float16": Fault(FORWARD, "p.to(v_tile.dtype)", "p.to(tl.float16).to(v_tile.dtype)", FREE),
}


def load(name: str, source: str, folder: Path, monkeypatch) -> None:
    """The module `name` of kernels made of this source; Triton reads a kernel's source from its file."""
    path = folder / f"{name}.py"
    path.write_text(source)
    whole = f"{kernels.__name__}.{name}"
    spec = importlib.util.spec_from_file_location(whole, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, whole, module)
    spec.loader.exec_module(module)


def plant(fault: Fault, folder: Path, monkeypatch) -> None:
    for name in (FORWARD, BACKWARD):  # in the order in which one imports the other
        source = Path(kernels.__file__).with_name(f"{name}.py").read_text()
        if name == fault.file:
            assert fault.right in source
            source = source.replace(fault.right, fault.wrong)
        load(name, source, folder, monkeypatch)


@pytest.mark.triton
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's: NaN and infinities are what some mistakes make
@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_noticed(name, tmp_path, monkeypatch):
    fault = FAULTS[name]
    plant(fault, tmp_path, monkeypatch)
    with pytest.raises(AssertionError, match=NOT_EQUAL):
        check(fault.shown_by)


@pytest.mark.triton
@pytest.mark.parametrize("case", {fault.shown_by for fault in FAULTS.values()}, ids=str)
def test_without_a_fault_nothing_is_noticed(case, tmp_path, monkeypatch):
    plant(Fault(FORWARD, "import", "import", case), tmp_path, monkeypatch)
    check(case)
