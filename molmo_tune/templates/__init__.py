"""From labels and sampled frames to what is said about them: words, turns and frame choice.

Templates hold words, this package holds numbers. `template` and `wording` read and fill in the
user's words; `asking` makes conversations of a sample, with one module per family of tasks
(`pointing`, `tracking`, `events`, `written`); `visible` and `alignment` say what the sampled frames
show, `exhaustive` what may be counted or called absent; `chat` has the shape of a conversation as
Molmo 2 was trained on it. No tokenizer and no torch.
"""
