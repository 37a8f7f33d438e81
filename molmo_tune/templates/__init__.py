"""From labels and sampled frames to what is said about them: words, turns and frame choice.

Templates hold words, this package holds numbers: here lie the shape of a conversation as Molmo 2
was trained on it (`chat`) and the rule by which labelled frames meet sampled frames (`alignment`).
No tokenizer and no torch.
"""
