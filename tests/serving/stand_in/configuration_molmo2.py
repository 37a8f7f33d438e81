"""Replacement for the remote code of released checkpoints: the fields of `config.json`, by name."""

from typing import Any

from transformers import PretrainedConfig


class Part(PretrainedConfig):
    """A section of the configuration."""

    model_type = "molmo2_part"
    max_position_embeddings = 0  # read before the fields are set

    def __init__(self, **fields: Any) -> None:
        super().__init__(**fields)
        for name in fields.keys() & {
            "rope_theta"
        }:  # moved by Transformers, not by the released code
            setattr(self, name, fields[name])

    @property
    def image_num_patch(self) -> tuple[int, int]:
        """Patches of an image in height and width; only used for the vision section."""
        height, width = self.image_default_input_size
        return height // self.image_patch_size, width // self.image_patch_size


class Molmo2Config(PretrainedConfig):
    """The configuration, with the released names of its sections."""

    model_type = "molmo2"

    def __init__(self, **fields: Any) -> None:
        for name in ("vit_config", "adapter_config", "text_config"):
            setattr(self, name, Part(**fields.pop(name, {})))
        super().__init__(**fields)
