"""molmo-tune: fine-tune Ai2's Molmo 2 on your own pointing, tracking and counting labels.

Subpackages follow the data flow, one per stage; a stage never imports a later one
(``tests/test_architecture.py`` checks the imports):

    media, recipe, grounding → labels → templates → encoding → model → evaluation → checks
        → preference → training → planning → export → pages → tiny → commands → cli

Importing ``molmo_tune`` itself imports nothing heavy (no torch, no transformers).
"""

__version__ = "0.1.0"
