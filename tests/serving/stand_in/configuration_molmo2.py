"""Stands in for the remote code of released checkpoints: the fields of `config.json`, by name."""

from typing import Any

from transformers import PretrainedConfig


class Part(PretrainedConfig):
    """A section of the configuration."""

    model_type = "molmo2_part"
    max_position_embeddings = 0  # asked for before the fields are set

    def __init__(self, **fields: Any) -> None:
        super().__init__(**fields)
        for name in fields.keys() & {"rope_theta"}:  # transformers moves it, the released code not
            setattr(self, name, fields[name])

    @property
    def image_num_patch(self) -> tuple[int, int]:
        """Patches of an image in height and width; asked of the vision section only."""
        height, width = self.image_default_input_size
        return height // self.image_patch_size, width // self.image_patch_size


class Molmo2Config(PretrainedConfig):
    """The whole, with the sections' released names."""

    model_type = "molmo2"

    def __init__(self, **fields: Any) -> None:
        for name in ("vit_config", "adapter_config", "text_config"):
            setattr(self, name, Part(**fields.pop(name, {})))
        super().__init__(**fields)
