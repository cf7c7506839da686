"""One holder at a time, between processes, and no lock outlives its holder."""

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from nano_llama.core.errors import EnvironmentFault
from nano_llama.data.lock import exclusive

HOLD = """
import sys, time
from pathlib import Path
from nano_llama.data.lock import exclusive
with exclusive(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def hold(path: Path) -> subprocess.Popen:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_a_second_process_waits_and_a_killed_holder_releases_the_lock(tmp_path):
    path = tmp_path / "deep" / "lock"
    holder = hold(path)
    try:
        with pytest.raises(EnvironmentFault, match="held"), exclusive(path, wait_s=0.2):
            raise AssertionError("two holders")
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        holder.stdout.close()
    with exclusive(path, wait_s=5):
        pass


def test_threads_of_one_process_exclude_each_other_too(tmp_path):
    inside, most = 0, 0

    def work() -> None:
        nonlocal inside, most
        with exclusive(tmp_path / "lock"):
            inside += 1
            most = max(most, inside)
            time.sleep(0.02)
            inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_who_waited_for_a_lock_file_that_was_removed_locks_a_new_one(tmp_path):
    path = tmp_path / "lock"
    holder = hold(path)
    path.unlink()  # as a holder does whose folder gets its final name
    with exclusive(path, wait_s=5):
        holder.kill()
        holder.wait()
        holder.stdout.close()
        with pytest.raises(EnvironmentFault), exclusive(path, wait_s=0.1):
            raise AssertionError("two holders")


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_a_place_where_no_folder_can_be_made_is_an_error_at_once():
    with (
        pytest.raises(EnvironmentFault, match="Cannot write /proc/nowhere/lock"),
        exclusive(Path("/proc/nowhere/lock")),
    ):
        raise AssertionError
