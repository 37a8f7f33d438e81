"""The tiny Molmo 2: the complete architecture with about a million parameters, and its scenes.

The demo and the tests need a model that really points, on a CPU and without a network. This
subpackage holds its tokenizer (`tokenizer`), its configuration (`checkpoint`), and the synthetic
scenes of its pre-training (`shapes`) and of the demo (`pond`). The weights are in `base/`, in the
layout of the released Hub checkpoints, so they go through the same code. `dev.tiny_base.pretrain`
trained them.
"""
