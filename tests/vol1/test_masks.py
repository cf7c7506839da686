"""Masks: what each allows, one by one, and that wrong shapes are refused."""

import numpy as np
import pytest

from nano_llama.core.errors import UserError
from nano_llama.vol1_numpy.masks import causal_mask, document_mask, padding_mask


def test_causal_sees_itself_and_before():
    np.testing.assert_array_equal(causal_mask(3), [[1, 0, 0], [1, 1, 0], [1, 1, 1]])
    np.testing.assert_array_equal(causal_mask(2, num_past=2), [[1, 1, 1, 0], [1, 1, 1, 1]])


def test_padding_keys_are_hidden():
    mask = padding_mask(np.array([[0, 1, 1]])) & causal_mask(3)
    assert mask.shape == (1, 1, 3, 3)
    np.testing.assert_array_equal(mask[0, 0], [[0, 0, 0], [0, 1, 0], [0, 1, 1]])


def test_documents_do_not_see_each_other():
    mask = document_mask(np.array([[7, 7, 2]])) & causal_mask(3)
    np.testing.assert_array_equal(mask[0, 0], [[1, 0, 0], [1, 1, 0], [0, 0, 1]])


def test_wrong_shapes_and_values_are_refused():
    with pytest.raises(UserError, match=r"\(3,\)"):
        padding_mask(np.ones(3, bool))
    with pytest.raises(UserError, match="int"):
        padding_mask(np.array([[0, 2]]))
    with pytest.raises(UserError, match=r"\(4,\)"):
        document_mask(np.arange(4))
