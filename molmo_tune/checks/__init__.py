"""Checks of the data of a recipe before training, one module per question."""
