"""Stands in for the remote code of released checkpoints: transformers' own class."""

from transformers.models.molmo2.processing_molmo2 import Molmo2Processor as Native


class Molmo2Processor(Native):
    """As transformers has it."""
