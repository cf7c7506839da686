"""The version of this package: `nano_llama.__version__`. Tests: tests/docs/test_readme.py."""

VERSION = "0.1.0"
