"""`python full_disk.py STEP train ...` is `nano-llama train ...` on a disk without room for checkpoints after STEP."""

import errno
import os
import sys
from contextlib import contextmanager

from nano_llama.cli import main
from nano_llama.core import files


def fill_after(step: int) -> None:
    atomic_folder = files.atomic_folder

    @contextmanager
    def without_room(path):
        with atomic_folder(path) as temporary:
            if path.name.startswith("step-") and path.name > f"step-{step:08d}":  # the dataset has room
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            yield temporary

    files.atomic_folder = without_room


if __name__ == "__main__":
    fill_after(int(sys.argv[1]))
    sys.exit(main(sys.argv[2:]))
