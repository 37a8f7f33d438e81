"""Types for the parts of a checkpoint's processor that this package uses.

transformers builds processors from files, so a type checker knows nothing about them. These
protocols list every attribute and call that the package relies on. If a version of transformers
drops one, the test that compares the protocols with a loaded processor fails first.

Source: transformers' `Molmo2Processor`, `Molmo2ImageProcessor` and `Molmo2VideoProcessor`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch


class Tokenizer(Protocol):
    """Text to token ids and back."""

    bos_token_id: int | None
    eos_token_id: int
    pad_token_id: int
    chat_template: str | None

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Return the token ids of a text."""

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """Return the text of token ids."""

    def convert_tokens_to_ids(self, tokens: str) -> int:
        """Return the id of one token."""

    def get_vocab(self) -> dict[str, int]:
        """Return every token with its id."""

    def get_added_vocab(self) -> dict[str, int]:
        """Return the special tokens with their ids."""


class ImageProcessor(Protocol):
    """Images to patches."""

    pooling_size: Sequence[int]

    def to_json_string(self) -> str:
        """Return all settings as JSON."""

    def __call__(self, images: Sequence[Any], **settings: Any) -> Mapping[str, torch.Tensor]:
        """Return ``pixel_values (C, P, D)``, ``image_grids (I, 4)`` and pooling indices."""

    def get_image_grid_and_crops(
        self, height: int, width: int, images_kwargs: dict[str, Any] | None = None
    ) -> tuple[list[int], int]:
        """Return the token grid of an image of this size in pixels, and its number of crops."""


class VideoProcessor(Protocol):
    """Frames to patches."""

    size: Mapping[str, int]
    patch_size: int
    pooling_size: Sequence[int]

    def to_json_string(self) -> str:
        """Return all settings as JSON."""

    def __call__(self, videos: Sequence[Any], **settings: Any) -> Mapping[str, torch.Tensor]:
        """Return ``pixel_values_videos (F, P, D)``, ``video_grids`` and pooling indices."""


class Processor(Protocol):
    """A checkpoint's tokenizer, image and video processor, and how it lays out vision tokens."""

    tokenizer: Tokenizer
    image_processor: ImageProcessor
    video_processor: VideoProcessor
    chat_template: str | None
    image_use_col_tokens: bool
    video_use_col_tokens: bool
    use_single_crop_col_tokens: bool | None
    use_single_crop_start_token: bool
    use_frame_special_tokens: bool

    def save_pretrained(self, save_directory: str | Path) -> Any:
        """Write the processor's files into a folder."""
