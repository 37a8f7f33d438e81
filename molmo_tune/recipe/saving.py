"""Recipes as text: resolved YAML for the run folder, and the JSON Schema for editors.

The YAML has every setting with its value, so that a run can be repeated after a default has
changed; `molmo_tune.recipe.loader` reads it back to an equal recipe. Strings that are something
else under YAML 1.1 or 1.2 (``yes``, ``1e-4``) are quoted.
"""

from __future__ import annotations

from typing import Any

import yaml
from yaml.nodes import ScalarNode, SequenceNode

from molmo_tune.recipe.sections import Recipe
from molmo_tune.recipe.yaml_lines import CoreLoader

_WIDTH = 100


class _Dumper(yaml.SafeDumper):
    """Writes YAML that both versions read alike; lists of plain values on one line."""


def _one_line_list(dumper: _Dumper, values: list[Any]) -> SequenceNode:
    plain = not any(isinstance(value, list | dict) for value in values)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=plain)


def _escaped_text(dumper: _Dumper, text: str) -> ScalarNode:
    """Quote line breaks and control characters, which plain YAML scalars do not keep."""
    style = None if text.isprintable() else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _escaped_text)
_Dumper.add_representer(list, _one_line_list)
_Dumper.yaml_implicit_resolvers = {
    first: [
        *yaml.SafeDumper.yaml_implicit_resolvers.get(first, []),
        *CoreLoader.yaml_implicit_resolvers.get(first, []),
    ]
    for first in {*yaml.SafeDumper.yaml_implicit_resolvers, *CoreLoader.yaml_implicit_resolvers}
}


def dump_recipe(recipe: Recipe) -> str:
    """Return the resolved recipe as YAML: every setting, in the order of the sections."""
    text: str = yaml.dump(
        recipe.model_dump(mode="json"),
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=False,
        width=_WIDTH,
    )
    return text


def recipe_json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a recipe, for completion in editors."""
    schema = Recipe.model_json_schema()
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return {**head, **schema, "title": "molmo-tune recipe"}
