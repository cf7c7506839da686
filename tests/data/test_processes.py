"""A conversation with worker processes: answers, errors as answers, and an end of either side."""

import os
import signal
import subprocess
import sys
import textwrap
from contextlib import suppress

import pytest

from nano_llama.core.errors import EnvironmentFault, UserError
from nano_llama.data.processes import Processes

MODULE = """
import sys
from nano_llama.data.processes import receive, run_worker
from nano_llama.core.errors import UserError

def begin(requests):
    greeting = receive(requests)
    print("a library's chatter goes elsewhere")

    def answer(message):
        if message == "refused":
            raise UserError("refused", hint="ask otherwise")
        if message == "large":
            raise MemoryError
        return greeting, sys.argv[1], message

    return answer

if __name__ == "__main__":
    run_worker(begin)
"""


@pytest.fixture
def talk(tmp_path, monkeypatch):
    (tmp_path / "talker.py").write_text(textwrap.dedent(MODULE))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    with Processes("talker", "argument", count=2, greeting="hello", hint="use fewer") as processes:
        yield processes


def test_every_message_gets_its_own_answer(talk):
    futures = [talk.submit(number, "was counting") for number in range(20)]
    assert [future.result() for future in futures] == [("hello", "argument", number) for number in range(20)]


def test_a_workers_error_is_raised_in_the_parent_and_the_worker_goes_on(talk):
    with pytest.raises(UserError, match="refused") as caught:
        talk.submit("refused", "was asked").result()
    assert caught.value.hint == "ask otherwise"
    with pytest.raises(EnvironmentFault, match="out of memory"):
        talk.submit("large", "was asked").result()
    assert all(talk.submit(1, "was asked").result()[2] == 1 for _ in range(3))


def test_a_worker_that_ended_fails_its_futures_at_once(talk):
    for process in talk.all:
        os.kill(process.pid, signal.SIGKILL)
    futures = [talk.submit(number, "was counting") for number in range(5)]
    for future in futures:
        with pytest.raises(EnvironmentFault, match="A worker that was counting ended with code -9") as caught:
            future.result(timeout=30)
        assert caught.value.hint == "use fewer"


def test_workers_end_with_the_process_that_asks():
    script = """
import os, sys
from nano_llama.data.processes import Processes
print(Processes("nano_llama.data.prefetch", count=1, hint="").all[0].pid, flush=True)
os._exit(9)
"""
    pid = int(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout)
    psutil = pytest.importorskip("psutil")
    with suppress(psutil.NoSuchProcess):  # so quick
        psutil.Process(pid).wait(timeout=20)
