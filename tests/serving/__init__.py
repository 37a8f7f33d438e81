"""Trials of exports in servers that need their own environment."""
