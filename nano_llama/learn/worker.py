"""The process in which a learner's code runs, so that code that hangs or eats memory costs an error only.

Started through core/limited_process.py, as a script, by run_check.py (the module stages.py) and serve.py (the module
cells.py). It is not a sandbox: the code may do whatever the learner may. It speaks lines of JSON:

    in    {"path": [...], "module": name, "memory": bytes, "seconds": n}     once
    out   {"ready": true}
    in    what answer(...) of that module takes                              any number of times
    out   what it returns

Tests: tests/learn/test_run_check.py.
"""

import json
import os
import sys


def serve(lines, answer) -> None:
    """Answer every line until there are no more."""
    setup = json.loads(next(lines))
    sys.path[:] = setup["path"]
    sys.dont_write_bytecode = True
    from importlib import import_module

    from threadpoolctl import threadpool_limits

    from nano_llama.core.limited_process import limit_resources

    module = import_module(setup["module"])
    threadpool_limits(1)
    limit_resources(setup["memory"], setup["seconds"])
    answer({"ready": True})
    for line in lines:
        limit_resources(setup["memory"], setup["seconds"])
        answer(module.answer(**json.loads(line)))


def main() -> None:
    """Requests and answers have the pipes that the parent gave. The learner's code gets others: what it prints is
    caught, and input() finds the end at once, where it would wait for a request, or take one."""
    if hasattr(os, "nice"):
        os.nice(5)
    requests, out = os.fdopen(os.dup(0), encoding="utf-8"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # what a library prints to the descriptor itself goes where errors go

    def answer(reply: dict) -> None:
        out.write(json.dumps(reply) + "\n")
        out.flush()

    serve(iter(requests), answer)


if __name__ == "__main__":
    main()
