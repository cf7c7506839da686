"""Settings of fine-tuning: defaults that follow from others, what contradicts, and train.json that says which it is."""

import pytest

from nano_llama.core.errors import ConfigError, UserError
from nano_llama.core.lora import LoraConfig
from nano_llama.training.finetune.settings import DEFAULT_EPOCHS, FinetuneSettings
from nano_llama.training.saved_settings import load_settings
from nano_llama.training.settings import TrainSettings


def settings(**changes):
    return FinetuneSettings(data="chats.jsonl", init_from="nano_gpt", **changes)


def test_it_ends_by_epochs_unless_something_else_is_given():
    assert settings().epochs == DEFAULT_EPOCHS and settings().max_minutes is None
    assert settings(max_steps=5).epochs is None and settings(max_minutes=2).epochs is None
    assert settings().replace(max_steps=7).epochs is None
    with pytest.raises(UserError, match=r"max_steps = 5 and epochs = 2 are both set"):
        settings(max_steps=5, epochs=2)


def test_rows_are_packed_where_attention_can_stay_within_them():
    assert settings().packing and settings().document_mask
    by_hand = settings(engine="numpy")
    assert by_hand.packing is False and by_hand.document_mask is False
    assert not settings(packing=False).document_mask
    with pytest.raises(UserError, match="document_mask = True"):
        settings(packing=False, document_mask=True)


def test_an_update_sees_a_few_examples():
    assert settings().batch_size < settings(packing=False).batch_size == settings(engine="numpy").batch_size
    assert settings(batch_size=3).batch_size == settings(packing=False, batch_size=3).batch_size == 3


def test_all_weights_move_less_than_an_adapter():
    assert settings(adapter="none").lr < settings().lr == settings(adapter="dora").lr
    assert settings(adapter="none", lr=0.003).lr == settings(lr=0.003).lr == 0.003


def test_the_adapter():
    assert settings(adapter="dora", rank=4, alpha=8.0, target_modules="v_proj, q_proj").lora == LoraConfig(
        r=4, alpha=8.0, dora=True, target_modules=("q_proj", "v_proj")
    )
    assert settings(adapter="none").lora is None and TrainSettings(data="x").lora is None
    with pytest.raises(ConfigError, match="'w_proj' gets no adapter"):
        settings(target_modules="q_proj,w_proj")
    with pytest.raises(UserError, match="adapter = 'qora'"):
        settings(adapter="qora")


@pytest.mark.parametrize("setting", [{"base_quantization": "int4"}, {"rslora": True}, {"lora_dropout": 0.1}])
def test_what_only_an_adapter_has_is_refused_without_one(setting):
    with pytest.raises(UserError, match=f"{next(iter(setting))} = .* is for an adapter"):
        settings(adapter="none", **setting)


def test_what_follows_from_other_settings_is_not_a_change():
    assert settings().changed == {"data": "chats.jsonl", "init_from": "nano_gpt"}
    assert not {"lr", "batch_size", "packing"} & settings(adapter="none", engine="numpy").changed.keys()
    assert settings(adapter="none", lr=0.5).changed.items() >= {("adapter", "none"), ("lr", 0.5)}
    assert TrainSettings(data="x", lr=0.5).changed == {"data": "x", "lr": 0.5, "max_minutes": 5.0}


def test_variables_of_the_template():
    assert settings().template_variables == {}
    assert settings(chat_template_kwargs='{"enable_thinking": false}').template_variables == {"enable_thinking": False}
    for text, says in (("{", "not JSON"), ("[1]", "not a JSON object"), ('{"tools": []}', "names 'tools'")):
        with pytest.raises(UserError, match=says):
            settings(chat_template_kwargs=text)


def test_a_model_is_needed():
    with pytest.raises(UserError, match="No model to fine-tune") as error:
        FinetuneSettings(data="chats.jsonl")
    assert "--model" in error.value.hint


@pytest.mark.parametrize("found", [settings(rank=3, max_steps=9), TrainSettings(data="stdlib", max_steps=9)])
def test_train_json_runs_the_same_again(found, tmp_path):
    import json

    (tmp_path / "train.json").write_text(json.dumps(found.to_json()))
    again = load_settings(tmp_path / "train.json")
    assert again == found and type(again) is type(found)
