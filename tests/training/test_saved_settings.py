"""A train.json that is not one is named; which settings it holds is tested in finetune/test_settings.py."""

import pytest

from nano_llama.core.errors import UserError
from nano_llama.training.saved_settings import load_settings


@pytest.mark.parametrize("text", ["[]", '{"method": "sft", "rank": 0}', '{"methods": 1}', '"method"'])
def test_what_is_no_settings_is_refused(text, tmp_path):
    path = tmp_path / "train.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"train\.json|rank = 0"):
        load_settings(path)
