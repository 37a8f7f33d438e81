"""What only a GPU can show: ``pytest tests/gpu``; skipped with a reason where there is none."""
