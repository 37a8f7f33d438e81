"""A recipe: one YAML file that says everything about a fine-tuning run, checked before it starts.

    sections.py       the sections and their defaults, the one place where a default is written
    loader.py         ``load_recipe(path, overrides)``, every fault at once
    saving.py         the resolved recipe as YAML again, and the JSON schema for editors
    bundled.py        the recipes and templates that come with the package

Import from these modules; this one stays empty so that listing the bundled files costs nothing.
"""
