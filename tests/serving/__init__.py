"""Trials of exports in servers that live in an environment of their own."""
