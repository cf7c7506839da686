"""What the tests of the command share: `cli(...)` runs it in this process and returns what a user would see."""

import json
from typing import Any, NamedTuple

import pytest

from nano_llama.cli import main


class Run(NamedTuple):
    """One run of the command: its exit code and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one JSON object on stdout; fails where there is anything else."""
        return json.loads(self.out)

    @property
    def shown(self) -> str:
        return self.out + self.err


@pytest.fixture
def cli(capsys):
    def run(*args: object) -> Run:
        capsys.readouterr()  # what came before is not this run's
        code = main([str(arg) for arg in args])
        return Run(code, *capsys.readouterr())

    return run
