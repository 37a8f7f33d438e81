"""The tiny Molmo 2: the complete architecture at about a million parameters, and worlds to see.

The demo and the tests need a model that really points, on a CPU, with no network. This room holds
its tokenizer and configuration (`checkpoint`), the synthetic worlds it and the demo look at
(`shapes`, `pond`), and the script that pre-trained the shipped weights (`pretrain`). The weights
lie in `base/` in the layout of the released hub checkpoints, so that they pass through exactly the
code that real checkpoints pass through.
"""
