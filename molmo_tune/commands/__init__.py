"""One module per verb of `molmo-tune`: ``HELP``, ``add_options(parser)`` and ``run(options)``.

All of them are imported for `molmo-tune --help`, so they import nothing heavy at the top: not
torch, not even pydantic or rich.
"""
