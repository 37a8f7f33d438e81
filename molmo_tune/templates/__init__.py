"""Conversations from labels and sampled frames: phrasing, turns and the choice of frames.

Templates hold words, the package holds numbers. `template` and `wording` read and fill in the
user's phrasings. `questions` turns a sample into conversations, with one module per family of tasks
(`pointing`, `tracking`, `events`, `dialogue`). `visible` and `alignment` determine what the sampled
frames show, and `exhaustive` which labels can be counted or called absent. `chat` holds the turn
format that Molmo 2 was trained on. No tokenizer and no torch.
"""
