"""The label formats: one module per format, in a folder per family of tools.

A module without a leading underscore that ends in `READER` is a format; its name is the format's
name in a recipe. Modules with a leading underscore hold what the formats of a family share.
"""
