"""Verify: the same model computed twice, compared, and the difference explained: checks to run on a checkpoint.

Tests: tests/verify/.
"""
