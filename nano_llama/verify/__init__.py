"""Verify: the same model computed twice, compared, and the difference explained. It stands above the volumes.

Not here: the test suite; these are checks that a user runs on a checkpoint. Tests: tests/verify/.
"""
