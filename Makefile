# Conveniences over the README's commands, which themselves need Python and pip only.
.PHONY: quickstart test slow lint format
PYTHON ?= python3

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv && .venv/bin/pip install -q -c constraints.txt -e ".[dev]" && touch $@

quickstart: .venv/ready
	.venv/bin/nano-llama quickstart

test: .venv/ready
	.venv/bin/python -m pytest

slow: .venv/ready  # the tests that take minutes
	.venv/bin/python -m pytest -m slow

lint: .venv/ready
	.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/lint-imports && .venv/bin/mypy

format: .venv/ready
	.venv/bin/ruff format . && .venv/bin/ruff check --fix .
