"""Preference training: pairs of answers, their reference, and the loss of a pair."""
