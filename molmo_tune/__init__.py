"""molmo-tune: fine-tune Ai2's Molmo 2 on your own pointing, tracking and counting labels.

The package is laid out in the order in which data flows, one room per stage; a stage never
imports a later one (``tests/test_architecture.py`` walks the imports):

    media, recipe, grounding → labels → templates → encoding → model
        → evaluation → training → export → tiny → cli

Importing ``molmo_tune`` itself imports nothing heavy (no torch, no transformers).
"""

__version__ = "0.1.0"
