"""`nano-llama` in processes of its own, which may be killed and held short of memory, disk and permissions."""

import json
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]

# Imports everything once and forks a child for each run, which calls the command's `main` as the installed script does.
COMMAND = """
import ctypes, json, os, resource, sys
sys.path.insert(0, sys.argv[1])
import nano_llama.cli.train, nano_llama.training.progress_bar
import nano_llama.vol2_torch.trainer
from helpers.quick_runs import leave_pictures_out, measure_peaks_briefly
from nano_llama.cli import main

leave_pictures_out()
measure_peaks_briefly()

def without_privileges():  # root's, to pass over permissions: capset(2), all sets empty
    ctypes.CDLL(None).capset((ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)())

for line in sys.stdin:
    request = json.loads(line)
    child = os.fork()
    if child == 0:
        log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ["NANO_LLAMA_CACHE"] = request["cache"]
        os.chdir(request["folder"])
        for name, value in request["limits"].items():
            resource.setrlimit(getattr(resource, "RLIMIT_" + name), (value, value))
        without_privileges()
        sys.argv[1:] = request["arguments"]
        sys.exit(main())
    print(child, flush=True)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""


class Command:
    """One run at a time: `start`, then `end`; or both, `run`."""

    def __init__(self, cache):
        self.cache = cache
        self.helper = subprocess.Popen([sys.executable, "-c", COMMAND, str(TESTS)], stdin=-1, stdout=-1, text=True)

    def start(self, *arguments, limits=None):
        """-> the process's number. limits: RLIMIT's name -> value."""
        request = {
            "arguments": [str(argument) for argument in arguments], "limits": limits or {}, "log": str(self.log),
            "cache": str(self.cache), "folder": str(self.log.parent),
        }  # fmt: skip
        self.helper.stdin.write(json.dumps(request) + "\n")
        self.helper.stdin.flush()
        return int(self.helper.stdout.readline())

    def end(self):
        """-> exit code (negative: the signal's number) and all that was printed."""
        return int(self.helper.stdout.readline()), self.log.read_text()

    def run(self, *arguments, limits=None):
        self.start(*arguments, limits=limits)
        return self.end()
