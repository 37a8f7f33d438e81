"""Replacement for the remote code of released checkpoints: the Transformers class."""

from transformers.models.molmo2.video_processing_molmo2 import Molmo2VideoProcessor as Native


class Molmo2VideoProcessor(Native):
    """The Transformers class."""
