"""Checkpoint layouts: tensor names, shapes, and the fields of the configuration."""
