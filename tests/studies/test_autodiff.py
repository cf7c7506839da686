"""The study's measurements: kept memory counted once and without inputs, gradients equal to autograd's."""

import numpy as np
import pytest

from nano_llama.studies import autodiff as study

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def table():
    return study.make_ops(torch, B=2, T=12, D=16, H=2, F=24, V=30, seed=0)


def test_all_forms_have_the_same_gradients(table):
    for name, op in table.items():
        _, _, theirs = study.automatically(torch, op.automatic, op.inputs, repeats=1)
        for pair in [op.plain, *([op.fast] if op.fast else [])]:
            _, _, ours = study.by_hand(pair, op.inputs, repeats=1)
            assert len(ours) == len(theirs) == len(op.inputs)
            for a, b in zip(ours, theirs, strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5, err_msg=name)


def test_linear_has_no_fast_form_and_attention_has(table):
    assert table["linear"].fast is None and table["attention"].fast is not None


def test_saved_bytes_count_each_storage_once_and_no_inputs():
    x, kept = np.zeros((10, 4)), np.zeros(100)
    cache = (x.reshape(-1), kept, kept[:50], [kept.reshape(10, 10).T], 3, "half")
    assert study.bytes_kept(cache, (x,)) == kept.nbytes


def test_softmax_keeps_its_output_on_both_sides(table):
    output = 2 * 2 * 12 * 12 * 4 / 2**20  # (B,H,T,T) float32
    op = table["softmax"]
    assert study.by_hand(op.plain, op.inputs, 1)[1] == pytest.approx(output)
    assert study.automatically(torch, op.automatic, op.inputs, 1)[1] == pytest.approx(output)


def test_an_op_without_a_fast_form_has_two_bars_and_short_bars_have_their_number(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(study, "save", lambda figure, *_: drawn.append(figure))
    rows = {"linear": {"plain": 0.0, "torch": 8.0}, "rope": {"plain": 0.03, "fast": 4.0, "torch": 2.0}}
    study.draw_bars(tmp_path / "picture.png", rows, rows, "caption")
    for ax in drawn[0].axes:
        middles = sorted(bar.get_y() + bar.get_height() / 2 for bar in ax.patches)
        np.testing.assert_allclose(middles, [-0.135, 0.135, 0.73, 1.0, 1.27])
        assert sorted(text.get_text() for text in ax.texts if text.get_text()) == ["0", "0.03"]
