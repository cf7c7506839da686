"""Engines beside each other: each in its own process (engine_worker.py), all asked the same, in turns.

What they are asked is in engine.py and engine_fidelity.py.
"""

import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

WORKER = Path(__file__).with_name("engine_worker.py")


class Worker:
    """A process with one engine."""

    def __init__(self, python: str, engine: str, model: Path, **options: Any):
        self.command = [python, str(WORKER), engine, str(model), json.dumps(options)]
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed with the process
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True
        )
        self._answer()

    def ask(self, do: str, **question: Any) -> dict[str, Any]:
        assert self.process.stdin
        self.process.stdin.write(json.dumps({"do": do, **question}) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            self.log.seek(0)
            last = (self.log.read().strip() or "(no output)").splitlines()[-1]
            raise RuntimeError(f"exit code {self.process.wait()}: {last:.200}")
        return json.loads(line)

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()
        self.log.close()


class Field:
    """The engines that take part, by name. One that does not start, or crashes, is reported and left out."""

    def __init__(self) -> None:
        self.workers: dict[str, Worker] = {}

    def enter(self, name: str, python: str | None, engine: str, model: Path, **options: Any) -> None:
        if python is None:
            say(f"  {name}: skipped, no Python given for it")
            return
        try:
            self.workers[name] = Worker(python, engine, model, **options)
        except (RuntimeError, OSError) as error:
            say(f"  {name}: skipped, it did not start ({error})")

    def race(self, repeats: int, do: str, only: Any = None, **question: Any) -> dict[str, list[dict[str, Any]]]:
        """Ask every engine the same, in turns, each time in another order. Callable values are called for each turn."""
        answers: dict[str, list[dict[str, Any]]] = {name: [] for name in self.workers if only is None or only(name)}
        for turn in range(repeats):
            order = sorted(answers, key=lambda name: random.Random(f"{turn} {name}").random())
            fresh = {key: value() if callable(value) else value for key, value in question.items()}
            for name in order:
                try:
                    answers[name].append(self.workers[name].ask(do, **fresh))
                except (RuntimeError, OSError) as error:
                    say(f"  {name}: crashed ({error})")
                    del answers[name], self.workers[name]
                time.sleep(0.05)  # threads of the previous one may still spin
        return answers

    def close(self) -> None:
        for worker in self.workers.values():
            worker.close()


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def prompt_of(length: int) -> list[int]:
    """Random ids, never the same twice, so that no prefix cache can help."""
    return [random.randrange(1000, 40000) for _ in range(length)]


def spread(values: list[float]) -> dict[str, float]:
    values = [float(f"{value:.4g}") for value in values]
    return {"median": float(f"{median(values):.4g}"), "low": min(values), "high": max(values)}


def show(result: dict[str, Any], *columns: str) -> None:
    names = list(result[columns[0]])
    say("  " + f"{'':32}" + "".join(f"{column:>20}" for column in columns))
    for name in names:
        cells = [result[column].get(name) for column in columns]
        say("  " + f"{name:32}" + "".join(f"{cell['median']:>20,.1f}" if cell else f"{'-':>20}" for cell in cells))
