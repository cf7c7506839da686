"""`python -m nano_llama` is `nano-llama`, for where that is not on the path. Tests: tests/cli/test_main.py."""

import sys

from nano_llama.cli import main

if __name__ == "__main__":
    sys.exit(main())
