# Conveniences over the README's commands, which themselves need Python and pip only.
.PHONY: quickstart test slow parallel server lint format book formulas record has-sphinx
PYTHON ?= python3

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv && .venv/bin/pip install -q -c constraints.txt -e ".[dev]" && touch $@

quickstart: .venv/ready
	.venv/bin/nano-llama quickstart

test: .venv/ready
	.venv/bin/python -m pytest

slow: .venv/ready  # the tests that take minutes
	.venv/bin/python -m pytest -m slow

parallel: .venv/ready  # two and four processes
	.venv/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m parallel tests/parallel

server: .venv/ready  # servers in processes of their own, and clients of others
	.venv/bin/pip install -q -c constraints.txt -e ".[judges,eval]"
	.venv/bin/python -m pytest -m server

lint: .venv/ready
	.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/lint-imports && .venv/bin/mypy

format: .venv/ready
	.venv/bin/ruff format . && .venv/bin/ruff check --fix .

# The book: with the `python` first on PATH, which has the extra `book`; installs nothing and needs no network.
SPHINX = python -m sphinx -W -d book/_build/doctrees book book/_build/html

book: has-sphinx
	$(SPHINX)

has-sphinx:
	@python -c "import sphinx, myst_parser, furo" || (echo 'The book needs an extra: pip install -e ".[book]"'; exit 1)

formulas: has-sphinx book/node_modules  # when a formula is new: renders it into book/formulas.json, with Node
	$(SPHINX) -E -D render_formulas=1

book/node_modules: book/package.json
	npm install --prefix book --no-package-lock --no-audit --no-fund && touch $@

record: has-sphinx  # runs the cells that take minutes or other data, and keeps their results in book/results
	$(SPHINX) -E -D record_cells=1
