"""`quantize --compare`: its float32 is what `eval` finds, nothing is written, and what it cannot do is refused."""

import pytest


@pytest.fixture(scope="module")
def model(make_tiny, tmp_path_factory):
    return make_tiny(tmp_path_factory.mktemp("m") / "tiny", hidden_size=64, intermediate_size=96)


def test_float32_is_what_eval_finds(cli, model, tiny_text, tmp_path, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    found = cli("quantize", model, "--compare", "--data", tiny_text, "--context", 16, "--json", "--quiet").json
    expected = cli("eval", model, "--data", tiny_text, "--context", 16, "--json", "--quiet").json
    row = found["schemes"][0]
    assert row["scheme"] == "float32" and found["tokens"] == expected["tokens"] > 50
    for name in ("loss", "perplexity", "bits_per_byte"):
        assert row[name] == pytest.approx(expected[name], rel=1e-4), name
    assert [row["scheme"] for row in found["schemes"]] == ["float32", "int8", "int4", "int4-sym"]
    assert not list(tmp_path.iterdir())


def test_the_table(cli, model, tiny_text):
    told = ("quantize", model, "--compare", "--data", tiny_text, "--to", "int4", "--to", "int4,head=int4")
    done = cli(*told, "--tokens", 40, "--split", "train", "--quiet")
    table, text = done.out.split("\n\n")
    assert [line.split()[0] for line in table.splitlines()[2:]] == ["float32", "int4", "int4,head=int4"]
    assert table.count("±") == 4
    assert "40 tokens of the train split" in text and "quantized" not in text


def test_a_single_token_has_no_error(cli, model, tiny_text):
    done = cli("quantize", model, "--compare", "--data", tiny_text, "--to", "int8", "--tokens", 1, "--quiet")
    assert done.code == 0 and "±" not in done.out.split("\n\n")[0]
    done = cli("quantize", model, "--compare", "--data", tiny_text, "--to", "int8", "--tokens", 1, "--quiet", "--json")
    assert done.json["schemes"][1]["mean_kl_standard_error"] is None


def test_what_was_lost_before_is_not_seen_and_said(cli, model, tiny_text, tmp_path):
    assert cli("quantize", model, "--to", "int4", "--out", tmp_path / "q", "--quiet").code == 0
    told = ("quantize", tmp_path / "q", "--compare", "--data", tiny_text, "--tokens", 64, "--quiet")
    done = cli(*told)
    assert "The file itself is quantized (" in done.out and "7 x Q4_1" in done.out
    again, other = (
        row["mean_kl"] for row in cli(*told, "--to", "int4", "--to", "int4-sym", "--json").json["schemes"][1:]
    )
    assert again < other / 3, "the same blocks: activations alone differ"


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ([], "quantize needs --to and --out."),
        (["--to", "int8"], "quantize needs --out."),
        (["--compare"], "--compare needs a text"),
        (["--compare", "--data", "TEXT", "--out", "q"], "--compare writes no folder"),
        (["--compare", "--data", "nowhere.txt"], "No data at 'nowhere.txt'"),
        (["--compare", "--data", "TEXT", "--to", "int5"], "'int5' is not known"),
        (["--compare", "--data", "TEXT", "--context", 999], "--context 999 is longer than the model's"),
        (["--to", "int8", "--out", "q", "--data", "TEXT"], "--data belongs to --compare"),
        (["--to", "int8", "--out", "q", "--tokens", 5], "--tokens belongs to --compare"),
        (["--to", "int8", "--to", "int4", "--out", "q"], "a folder has one scheme"),
    ],
)
def test_what_cannot_be_honoured_is_refused(cli, model, tiny_text, tmp_path, monkeypatch, args, says):
    monkeypatch.chdir(tmp_path)
    done = cli("quantize", model, *(tiny_text if arg == "TEXT" else arg for arg in args), "--quiet")
    assert done.code == 2 and says in done.err, done.shown
    assert not list(tmp_path.iterdir())


def test_models_that_it_does_not_compute(cli, make_tiny, tiny_model_with_eyes, tiny_text, tmp_path):
    told = ("--compare", "--data", tiny_text, "--quiet")
    done = cli("quantize", tiny_model_with_eyes, *told)
    assert done.code == 2 and "reads images" in done.err
    other = make_tiny(tmp_path / "m", hidden_size=64, intermediate_size=96, hidden_act="relu2")
    done = cli("quantize", other, *told)
    assert done.code == 2 and "hidden_act = 'relu2': what computes with quantized weights has" in done.err
    done = cli("quantize", make_tiny(tmp_path / "n", hidden_size=48), *told)
    assert done.code == 2 and "not whole groups of" in done.err
