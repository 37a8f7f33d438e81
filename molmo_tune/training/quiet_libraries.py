"""Which notices of the libraries a run hides: those about choices that are made on purpose.

Each filter names the category, the module that warns and the start of the message, and holds only
while a run trains, so a real warning, also one with similar words, still appears.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from lightning.fabric.utilities.warnings import PossibleUserWarning


class Notice(NamedTuple):
    """A warning to hide; ``message`` matches its start, both patterns are regular expressions."""

    category: type[Warning]
    module: str
    message: str


NOTICES = (
    # `data.num_workers` is the user's choice; `train/data_wait` measures whether it suffices.
    Notice(
        PossibleUserWarning,
        r"lightning\.pytorch\.trainer\.connectors\.data_connector",
        "The '.*' does not have many workers",
    ),
    # So is `trainer.accelerator: cpu`.
    Notice(
        PossibleUserWarning, r"lightning\.pytorch\.trainer\.setup", "GPU available but not used"
    ),
    # A resumed run writes next to its earlier checkpoints; `start_run` refuses any other folder.
    Notice(
        UserWarning, r"lightning\.pytorch\.callbacks\.model_checkpoint", "Checkpoint directory "
    ),
    # Names that PEFT and the supported transformers share.
    Notice(FutureWarning, r"transformers\.modeling_utils", "`(is_)?gradient_checkpointing"),
    # Lightning uses a deprecated class of PyTorch.
    Notice(FutureWarning, r"lightning\.pytorch\.utilities\._pytree", ".*LeafSpec"),
)
LOGGERS = ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.rank_zero")
"""Loggers of Lightning's tips and device notices; their warnings stay."""


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Hide the notices during a ``with``."""
    levels = {name: logging.getLogger(name).level for name in LOGGERS}
    with warnings.catch_warnings():
        for category, module, message in NOTICES:
            warnings.filterwarnings("ignore", message, category, module)
        for name in LOGGERS:
            logging.getLogger(name).setLevel(logging.WARNING)
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)
