"""What a command cannot do is all that it says: no heading, no remark and no work before it."""

import pytest

COMMANDS = [
    ("train --data TEXT --out RUN", "already holds a run"),
    ("train --data TEXT --out NEW --lr -1", "lr = -1.0 must be"),
    ("train --data TEXT --out NEW --optimizer nosuch", "optimizer = 'nosuch' must be"),
    ("train --data TEXT --out NEW --engine numpy --device cuda", "device = 'cuda': Volume 1 computes in NumPy"),
    ("train --data TEXT --out NEW --engine numpy --tokenizer nowhere.json", "Model not found: nowhere.json"),
    ("quickstart --engine numpy --out RUN", "already holds a run"),
    ("quickstart --engine numpy --out TEXT/run", "is a file, not a folder"),
    ("study online-softmax --quick --out TEXT", "is a file, not a folder"),
    ("export nano_gpt --format hf --out NEW --dtype nosuch", "'nosuch' is not a float type"),
    ("export nano_gpt --format gguf --out NEW --dtype nosuch", "cannot be written as 'nosuch'"),
    ("generate --prompt x --quantization nosuch", "quantization='nosuch'"),
    ("chat nano_gpt --engine numpy --quantization int8", "--quantization int8 is for --engine engine"),
    ("eval nano_gpt --data TEXT --beside nowhere", "Model not found: nowhere"),
    ("verify nano_gpt --reference nowhere", "Model not found: nowhere"),
    ("bench nano_gpt --prompt-tokens 99999", "99999 prompt tokens"),
    ("runs RUNS --csv NEW", "must end in .csv"),
    (
        "finetune --check-data",
        "finetune --check-data needs --model and --data. For example:  nano-llama finetune --model",
    ),
]


@pytest.fixture
def paths(tmp_path, tiny_text):
    run = tmp_path / "runs" / "done"
    run.mkdir(parents=True)
    (run / "train.json").write_text("{}")
    return {"TEXT": tiny_text, "RUNS": run.parent, "RUN": run, "NEW": tmp_path / "new"}


@pytest.mark.parametrize(("command", "says"), COMMANDS, ids=[command for command, _ in COMMANDS])
def test_the_error_is_all_that_is_said(cli, paths, command, says):
    if command.startswith(("eval", "verify")):
        pytest.importorskip("transformers")
    for word, path in paths.items():
        command = command.replace(word, str(path))
    done = cli(*command.split())
    assert done.code == 2 and done.out == "", done.shown
    assert done.err.startswith("error: ") and says in done.err.splitlines()[0], done.err
    assert not paths["NEW"].exists()


@pytest.mark.parametrize("given", [(), ("--model", "nano_gpt"), ("--data", "x.jsonl"), ("--set", "rank=4")])
def test_checking_data_needs_what_training_on_them_needs_but_out(cli, given):
    done = cli("finetune", "--check-data", *given)
    missing = [flag for flag in ("--model", "--data") if flag not in given and "--set" not in given]
    assert done.code == 2 and "--out" not in done.err.partition("For example")[0]
    if missing:
        assert f"finetune --check-data needs {' and '.join(missing)}." in done.err


def test_an_action_that_takes_no_such_flag_needs_none(cli):
    assert cli("train", "--presets", "--quiet").code == 0
