"""What is optional about a run: saving, recording, evaluating, refusing, showing progress."""
