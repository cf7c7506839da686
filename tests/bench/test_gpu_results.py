"""The file of a card's results: joined from several calls, when it has passed, and the leaderboard that shows it."""

import json

import pytest
from gpu_sections.results import Results, collect, short_name
from gpu_sections.table import CORRECTNESS, FLASH_FORWARD, SDPA_ERRORS, SECTIONS, passed

from nano_llama.core.errors import FormatError, UserError

H100 = "NVIDIA H100 80GB HBM3"


def line(name, *, card=H100, good=True, value=0.8, status="done", errors=()):
    row = {"what": f"what {name} shows", "value": value, "unit": "tokens/s", "met": good, "at_least": 0.7, "beside": ""}
    return {"section": name, "status": status, "passed": good, "seconds": 1.0, "card": card, "torch": "2.11.0",
            "python": "3.12.3", "date": "2026-11-28", "rows": [row], "notes": {}, "errors": list(errors)}  # fmt: skip


def test_the_names_of_cards():
    assert short_name(H100) == "h100"
    assert short_name("NVIDIA H200") == "h200"
    assert short_name("NVIDIA GeForce RTX 4090") == "4090"


def test_sections_of_two_calls_are_joined_in_the_tables_order(tmp_path):
    Results(tmp_path).add(line("generate_8b"))
    results = Results(tmp_path)
    for name in ("gradients", "attention"):
        path = results.add(line(name))
    assert path.name == "gpu_h100.json"
    found = json.loads(path.read_text())
    assert list(found["sections"]) == ["attention", "gradients", "generate_8b"]
    assert found["card"] == H100
    assert (found["torch"], found["python"], found["date"]) == ("2.11.0", "3.12.3", "2026-11-28")


def test_a_section_that_died_before_it_named_its_card_is_kept(tmp_path):
    results = Results(tmp_path)
    assert results.add(line("attention", card=None, good=False, status="skipped")) is None
    results.add(line("fused"))
    path = results.add(line("gradients", card=None, good=False, status="crashed", errors=["gradients: it ended"]))
    assert json.loads(path.read_text())["sections"]["gradients"]["errors"] == ["gradients: it ended"]


def test_passed_wants_every_correctness_section_on_a_card(tmp_path):
    results = Results(tmp_path)
    for name in CORRECTNESS[:-1]:
        path = results.add(line(name))
    assert not json.loads(path.read_text())["passed"], "one is missing"
    results.add(line(CORRECTNESS[-1], good=False))
    assert not json.loads(path.read_text())["passed"], "one missed its bar"
    results.add(line(CORRECTNESS[-1]))
    results.add(line("nano", good=False))
    found = json.loads(path.read_text())
    assert found["passed"], "speeds do not decide"
    assert not passed({**found, "rehearsal": True})


def test_collect_reads_what_a_command_printed_and_files(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    shown = [json.dumps(line(name)) for name in CORRECTNESS]
    (tmp_path / "call1").write_text("a warning\n" + "\n".join(shown) + "\n{not ours}\n")
    path = Results(tmp_path).add(line("nano"))
    said = collect([tmp_path / "call1", path], out)
    assert "passed = True" in said
    assert {"nano", *CORRECTNESS} == json.loads((out / "gpu_h100.json").read_text())["sections"].keys()
    (tmp_path / "cut").write_text(shown[0][:-20])
    with pytest.raises(FormatError, match="cut off"):
        collect([tmp_path / "cut"], out)
    (tmp_path / "empty").write_text("nothing\n")
    with pytest.raises(UserError, match="No section"):
        collect([tmp_path / "empty"], out)


def test_bars_are_those_of_the_issue():
    assert FLASH_FORWARD.met(0.7) and not FLASH_FORWARD.met(0.69)
    assert SDPA_ERRORS.met(2.0) and not SDPA_ERRORS.met(2.1)
    assert not FLASH_FORWARD.met(float("nan")) and not SDPA_ERRORS.met(float("nan"))


def test_the_leaderboard_shows_a_card(tmp_path):
    import leaderboard

    results = Results(tmp_path)
    results.add(line("flash", value=0.81))
    results.add(line("nano", good=False, value=2_500_000.0, errors=["nano, attention = triton: UserError: no"]))
    table = leaderboard.gpu_table(json.loads(results.add(line("generate_1b")).read_text()))
    assert f"## On one {H100}" in table
    assert "| what flash shows | 0.81 tokens/s | at least 0.7 | yes | `flash` |" in table
    assert "| what nano shows | 2,500,000 tokens/s | at least 0.7 | no | `nano` |" in table
    assert "| nano, attention = triton: UserError: no | - | - | no | `nano` |" in table
    assert "not all that must be right" in table


def test_every_correctness_section_comes_first():
    assert [section.name for section in SECTIONS][: len(CORRECTNESS)] == list(CORRECTNESS)
    assert {section.call for section in SECTIONS if section.correctness} == {1}


def test_nothing_is_chosen_by_itself_before_a_card_has_passed(bench):
    """`auto` may take what only a card can prove once bench/results holds a file that says so."""
    choice = pytest.importorskip("nano_llama.vol2_torch.kernels.choice")
    files = [json.loads(path.read_text()) for path in (bench / "results").glob("gpu_*.json")]
    assert not choice.PROVED_ON_A_CARD or any(map(passed, files))


def test_published_files_say_of_themselves_whether_they_passed(bench):
    for path in (bench / "results").glob("gpu_*.json"):
        found = json.loads(path.read_text())
        assert found["passed"] == passed(found), path
