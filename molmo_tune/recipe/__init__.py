"""A recipe: one YAML file with all settings of a fine-tuning run, checked before it starts.

    sections.py       the sections and their defaults
    conflicts.py      rules between two keys
    loader.py         ``load_recipe(path, overrides)``: the recipe, or all of its errors at once
    saving.py         the resolved recipe as YAML, and the JSON Schema for editors
    bundled.py        the recipes and data templates that come with the package

Import from these modules; this one stays empty, so that listing the bundled files is cheap.
"""
