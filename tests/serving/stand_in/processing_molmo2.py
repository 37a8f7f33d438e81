"""Replacement for the remote code of released checkpoints: the Transformers class."""

from transformers.models.molmo2.processing_molmo2 import Molmo2Processor as Native


class Molmo2Processor(Native):
    """The Transformers class."""
