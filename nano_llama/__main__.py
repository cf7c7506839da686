"""`python -m nano_llama` is `nano-llama`, where the latter is not on the path.

Not here: the command itself (cli/). Tests: tests/cli/test_main.py.
"""

import sys

from nano_llama.cli import main

if __name__ == "__main__":
    sys.exit(main())
