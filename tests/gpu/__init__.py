"""Tests that need a GPU: ``pytest tests/gpu``; skipped without one."""
