"""A short run of bench/server_fuzz.py, over sockets: bodies, constraints and connections that are not meant well."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.server
def test_what_is_not_meant_well(tmp_path):
    results = tmp_path / "results.json"
    command = [sys.executable, ROOT / "bench" / "server_fuzz.py", "--results", results, "--seed", "2"]
    command += ["--bodies", "300", "--constraints", "60", "--connections", "300"]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    run = subprocess.run(command, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, timeout=300)
    assert run.stdout.rstrip().endswith("passed"), run.stdout + run.stderr
    found = json.loads(results.read_text())
    for kind in ("bodies", "constraints"):
        assert set(found[kind]["statuses"]) <= {"200", "400", "404"} and found[kind]["statuses"]["200"] > 10
        assert found[kind]["good_requests"] and not found[kind]["wrong"]
