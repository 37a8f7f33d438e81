"""Golden inputs of every label format; `cases.py` describes the folders."""
