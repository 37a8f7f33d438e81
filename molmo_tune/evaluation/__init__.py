"""Asking the model, reading its answers and scoring them against the labels."""
