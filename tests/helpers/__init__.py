"""What tests import: stand-ins, references, makers of small models, and checks that several files need.

`from helpers.NAME import ..`: pytest puts tests/ on the path (`pythonpath` in pyproject.toml). Fixtures: conftest.py.
"""
