"""Answers of a model, generated, parsed and scored against the labels."""
