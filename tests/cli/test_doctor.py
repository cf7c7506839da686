"""`doctor`: the report of this machine, and the advice for others."""

import sys

import pytest

from nano_llama.cli.doctor import advise, probe_extras, probe_torch

CPU_ONLY = {"installed": True, "version": "2.11+cpu", "devices": ["cpu"], "cpu_bf16_fast": True}
HARDWARE = {"gpus": [], "free_memory_bytes": 8 * 2**30, "usable_cores": 2}


def test_report(cli):
    done = cli("doctor")
    assert done.code == 0
    for heading in ("Machine", "Software", "PyTorch", "Extras", "Advice"):
        assert f"\n{heading}" in f"\n{done.out}"
    assert "usable cores" in done.out
    assert "nano-llama quickstart" in done.out


def test_json(cli):
    report = cli("doctor", "--json", "--quiet").json
    assert report.keys() == {"hardware", "software", "torch", "extras", "advice"}
    assert report["hardware"]["usable_cores"] >= 1
    assert report["software"]["python"].startswith("3.")
    assert report["advice"]


def test_extras_follow_the_package_s_own_metadata():
    extras = probe_extras()
    assert "torch" in {**extras["train"]["installed"], **dict.fromkeys(extras["train"]["missing"])}
    assert "transformers" in str(extras["verify"])
    assert "nano-llama-engine" not in str(extras)


def test_without_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)  # what Python does for a module that cannot be imported
    probed = probe_torch()
    assert probed["installed"] is False
    advice = "\n".join(advise(HARDWARE, probed, {}))
    assert 'pip install -e "' in advice and '[train]"' in advice
    assert "--engine numpy" in advice


@pytest.mark.parametrize(
    ("hardware", "torch", "extras", "says"),
    [
        ({"gpus": ["RTX 9000"]}, {}, {}, "RTX 9000"),
        ({"free_memory_bytes": 2**29}, {}, {}, "512.0 MiB"),
        ({"free_memory_bytes": None}, {}, {}, "Ready. On 2 cores"),
        ({}, {"cpu_bf16_fast": False}, {}, "float32"),
        ({}, {}, {"verify": {"installed": {}, "missing": ["transformers"]}}, '[verify]"'),
        ({"usable_cores": 1}, {}, {}, "On 1 core,"),
    ],
)
def test_advice(hardware, torch, extras, says):
    assert says in "\n".join(advise({**HARDWARE, **hardware}, {**CPU_ONLY, **torch}, extras))
