"""Label formats: one module per format, in a folder per family of tools.

A module without a leading underscore that ends in `READER` is a format with the module's name.
Modules with a leading underscore contain what the formats of a family share. `molmo-tune formats
NAME` prints the docstring of a format's module.
"""
