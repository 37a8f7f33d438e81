"""Recipes: what is read, what is refused, and that every refusal names its line."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from molmo_tune.errors import UserError
from molmo_tune.label_formats import FORMAT_MODULES
from molmo_tune.recipe import bundled as bundled_module
from molmo_tune.recipe.bundled import bundled, list_bundled
from molmo_tune.recipe.foreign_names import _OURS_TO_THEIRS, _REMARKS, FOREIGN_KEYS, FOREIGN_VALUES
from molmo_tune.recipe.issues import Issue, RecipeError, dotted, path_of
from molmo_tune.recipe.keys import all_keys
from molmo_tune.recipe.loader import LARGEST_FILE, load_recipe, parse_recipe
from molmo_tune.recipe.saving import dump_recipe, recipe_json_schema
from molmo_tune.recipe.sections import Recipe
from molmo_tune.recipe.yaml_lines import read_yaml

SMALL = """\
model: {name: tiny}
data: {train: [{format: jsonl, path: train.jsonl}]}
output: {dir: runs/x}
"""  # the least that a recipe needs: three lines, so what a test appends starts on line 4


def faults_of(text: str, overrides: Sequence[str] = ()) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text, "r.yaml", overrides)
    return str(caught.value).splitlines()


def only_fault(text: str, overrides: Sequence[str] = ()) -> str:
    (line,) = faults_of(text, overrides)
    return line


def refusal(text: str) -> list[str]:
    """The lines of the error, none when the text is a sound recipe."""
    try:
        parse_recipe(text, "r.yaml")
    except RecipeError as error:
        return str(error).splitlines()
    return []


def with_value(key: str, value: object) -> dict[str, Any]:
    """The least recipe as a tree, with one key changed."""
    tree: dict[str, Any] = yaml.safe_load(SMALL)
    tree["data"]["val"] = [{"format": "jsonl", "path": "val.jsonl"}]
    spot: Any = tree
    *sections, last = path_of(key)
    for part in sections:
        spot = spot[part] if isinstance(part, int) else spot.setdefault(part, {})
    spot[last] = value
    return tree


# --- the acceptance bar -------------------------------------------------------------------------

EIGHT_FAULTS = """\
# A recipe with seven mistakes; the eighth is on the command line.
seed: 7
model:
  name: tiny
  attention: spda
adapter:
  rank: "32"
  dropuot: 0.1
data:
  train:
    - format: jsonl
      media: clips
optim:
  lr: -1e-4
  schedule: !!python/name:os.system cosine
trianer: {max_steps: 5}
output:
  dir: runs/x
"""


def test_eight_faults_give_eight_lines(tmp_path: Path) -> None:
    path = tmp_path / "eight.yaml"
    path.write_text(EIGHT_FAULTS)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, ["eval.batch_size=many"])
    lines = str(caught.value).splitlines()
    expected = [
        (f"{path}:5: model.attention: ", "did you mean 'sdpa'?"),  # wrong enum
        (f"{path}:7: adapter.rank: ", "an integer, not '32'"),  # wrong type
        (f"{path}:8: adapter.dropuot: ", "did you mean adapter.dropout?"),  # misspelled nested key
        (f"{path}:11: data.train.0.path: ", "is missing"),  # missing field: line of its entry
        (f"{path}:14: optim.lr: ", "greater than 0"),  # out of range
        (f"{path}:15: optim.schedule: ", "!!python/name:os.system"),  # unknown tag
        (f"{path}:16: trianer: ", "did you mean trainer?"),  # misspelled top-level key
        ("--set eval.batch_size=many: eval.batch_size: ", "an integer"),  # bad --set
    ]
    assert len(lines) == len(expected)
    for line, (start, part) in zip(lines, expected, strict=True):
        assert line.startswith(start)
        assert part in line
    assert [issue.line for issue in caught.value.issues] == [5, 7, 8, 11, 14, 15, 16, None]


def test_the_error_is_the_users_and_survives_pickling() -> None:
    error = RecipeError("r.yaml", [Issue("r.yaml", 3, "optim.lr", "must be a number")])
    assert isinstance(error, UserError)
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) == "r.yaml:3: optim.lr: must be a number"
    assert again.issues == error.issues


# --- what is read -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),  # PyYAML alone reads text here
        ("1E-4", 1e-4),
        (".5", 0.5),
        ("-2.e3", -2000.0),
        ("010", 10),  # YAML 1.2: not octal
        ("0o17", 15),
        ("0xff", 255),
        ("1_000", "1_000"),
        ("1:30", "1:30"),  # YAML 1.1 would read 90
        ("yes", "yes"),
        ("No", "No"),
        ("on", "on"),
        ("off", "off"),
        ("y", "y"),
        ("2024-01-01", "2024-01-01"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("", None),
        ("'1e-4'", "1e-4"),
        ("!!str 5", "5"),
        ("!!float 5", 5.0),
        ("[a, [1, b]]", ["a", [1, "b"]]),
    ],
)
def test_plain_words(text: str, value: object) -> None:
    reading = read_yaml(f"key: {text}\n")
    assert reading.value == {"key": value}
    assert isinstance(reading.value, dict)
    assert type(reading.value["key"]) is type(value)
    assert reading.faults == []


def test_lines_of_keys_and_entries() -> None:
    reading = read_yaml("# head\noptim:\n  lr: 1\n  betas:\n    - 0.9\n    - 0.8\nseed: 1\n")
    assert reading.lines == {
        (): 2,
        ("optim",): 2,
        ("optim", "lr"): 3,
        ("optim", "betas"): 4,
        ("optim", "betas", 0): 5,
        ("optim", "betas", 1): 6,
        ("seed",): 7,
    }


def test_defaults_and_types() -> None:
    recipe = parse_recipe(SMALL + "optim: {lr: 1e-5, betas: [0, 0.5]}\n", "r.yaml")
    assert recipe.seed == 7
    assert recipe.optim.lr == 1e-5
    assert recipe.optim.betas == (0.0, 0.5)
    assert recipe.adapter.targets == ("language",)
    assert recipe.data.train[0].path == Path("train.jsonl")  # left relative
    assert recipe.data.train[0].template == "video_pointing"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_files_of_all_editors(tmp_path: Path, encoding: str, newline: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(SMALL.replace("runs/x", "runs/größe"), encoding=encoding, newline=newline)
    assert load_recipe(path).output.dir == Path("runs/größe")


def test_a_recipe_is_frozen_and_knows_its_keys_only() -> None:
    recipe = parse_recipe(SMALL, "r.yaml")
    with pytest.raises(ValidationError, match="frozen"):
        recipe.seed = 8
    with pytest.raises(ValidationError, match="frozen"):
        recipe.optim.lr = 1.0
    with pytest.raises(ValidationError, match="extra"):
        Recipe.model_validate({**yaml.safe_load(SMALL), "sed": 1})
    assert hash(recipe) == hash(parse_recipe(SMALL, "other.yaml"))


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("appended", "where", "parts"),
    [
        # keys
        ("seed: 1\nseed: 2\n", "5: seed: ", ["duplicate key", "line 4"]),
        ("optim: {lrr: 1}\n", "4: optim.lrr: ", ["did you mean optim.lr?"]),
        ("optim: {weight-decay: 1}\n", "4: optim.weight-decay: ", ["optim.weight_decay?"]),
        ("lr: 1e-4\n", "4: lr: ", ["did you mean optim.lr?"]),
        ("optim: {max_steps: 9}\n", "4: optim.max_steps: ", ["did you mean trainer.max_steps?"]),
        ("learning_rate: 1\n", "4: learning_rate: ", ["use optim.lr"]),
        ("num_train_epochs: 1\n", "4: num_train_epochs: ", ["trainer.max_steps", "epochs"]),
        ("optim: {xyzzy: 1}\n", "4: optim.xyzzy: ", ["no such key", "expected lr, "]),
        ("5: 6\n", "4: 5: ", ["no such key"]),
        ("<<: {seed: 3}\n", "4: ", ["merge key"]),
        ("? [a]\n: 1\n", "4: ", ["plain scalar"]),
        ("!foo seed: 1\n", "4: seed: ", ["!foo"]),
        ('"\\ud800": 1\n', "4: ", ["plain scalar"]),
        # words
        ("adapter: {method: lroa}\n", "4: adapter.method: ", ["did you mean 'lora'?"]),
        ("adapter: {targets: [LLM]}\n", "4: adapter.targets.0: ", ["did you mean 'language'?"]),
        ("trainer: {precision: 16}\n", "4: trainer.precision: ", ["not 16"]),
        ("optim: {schedule: 5 o'clock}\n", "4: optim.schedule: ", ["'cosine', 'linear'"]),
        ("trainer: {devices: 0}\n", "4: trainer.devices: ", ["greater than 0 or 'auto'"]),
        ("trainer: {devices: all}\n", "4: trainer.devices: ", ["an integer or 'auto'"]),
        # types and ranges
        ("optim: {lr: fast}\n", "4: optim.lr: ", ["must be a number, not 'fast'"]),
        ("optim: {lr: true}\n", "4: optim.lr: ", ["not true"]),
        ("optim: {lr: }\n", "4: optim.lr: ", ["not empty"]),
        ("optim: {lr: .inf}\n", "4: optim.lr: ", ["a finite number"]),
        ("optim: {betas: [0.9]}\n", "4: optim.betas.1: ", ["is missing"]),
        ("optim: {betas: [0, 0, 0]}\n", "4: optim.betas: ", ["a list with at most 2 entries"]),
        ("optim: {betas: [0.9, 1]}\n", "4: optim.betas.1: ", ["less than 1"]),
        ("optim: {min_lr_ratio: 1.5}\n", "4: optim.min_lr_ratio: ", ["at most 1"]),
        ("optim:\n", "4: optim: ", ["must be a section"]),
        ("optim: [1]\n", "4: optim: ", ["must be a section", "a list with 1"]),
        ("seed: 1e3\n", "4: seed: ", ["an integer", "write it as 1000"]),
        ("seed: -1\n", "4: seed: ", ["at least 0"]),
        ("seed: 4294967296\n", "4: seed: ", ["less than 4294967296"]),
        (f"seed: {'9' * 5000}\n", "4: seed: ", ["cannot be read as an integer"]),
        ("adapter: {rslora: yes}\n", "4: adapter.rslora: ", ["true or false", "write true"]),
        ("adapter: {targets: vision}\n", "4: adapter.targets: ", ["a list", "in brackets"]),
        ("adapter: {targets: []}\n", "4: adapter.targets: ", ["at least 1"]),
        ("adapter: {targets: [vision, vision]}\n", "4: adapter.targets: ", ["vision more than"]),
        # unreadable values, each reported once
        ("seed: !foo 5\n", "4: seed: ", ["tag !foo"]),
        ("optim: !foo {lr: 1}\n", "4: optim: ", ["tag !foo"]),
        ('seed: "\\ud800"\n', "4: seed: ", ["cannot be read as a string"]),
        ("seed: !!int five\n", "4: seed: ", ["'five' cannot be read"]),
        ("optim: !!omap {lr: 1}\n", "4: optim: ", ["tag !!omap"]),
        ("seed: *other\n", "4: seed: ", ["alias *other"]),
        # rules between two keys
        ("optim: {warmup_steps: 600}\n", "4: optim.warmup_steps: ", ["trainer.max_steps", "600"]),
        (
            "optim: {warmup_steps: 5}\ntrainer: {max_steps: 5}\n",
            "4: optim.warmup_steps: ",
            ["trainer.max_steps"],
        ),
        ("optim: {lr_vision: 1e-5}\n", "4: optim.lr_vision: ", ["adapter.targets"]),
        ("optim: {lr_connector: 1e-5}\n", "4: optim.lr_connector: ", ["adapter.targets"]),
        ("eval: {every_steps: 100}\n", "4: eval.every_steps: ", ["data.val is empty"]),
        ("video: {sampling: uniform}\n", "4: video.sampling: ", ["'uniform_last_frame' or 'fps'"]),
        ("loss: {weighting: root_lenght}\n", "4: loss.weighting: ", ["'root_length'?"]),
        ("packing: true\n", "4: packing: ", ["did you mean data.packing?"]),
        ("sample_packing: true\n", "4: sample_packing: ", ["use data.packing"]),
    ],
)
def test_one_fault_one_line(appended: str, where: str, parts: list[str]) -> None:
    line = only_fault(SMALL + appended)
    assert line.startswith(f"r.yaml:{where}")
    for part in parts:
        assert part in line


def test_long_videos_must_fit_packs() -> None:
    packs = ["data.packing=true", "video.max_frames=384"]
    line = only_fault(SMALL, packs)
    assert "data.max_crops_per_pack: must be at least video.max_frames (384)" in line
    assert parse_recipe(SMALL, "r.yaml", [*packs, "data.max_crops_per_pack=384"]).data.packing
    assert not parse_recipe(SMALL, "r.yaml", packs[1:]).data.packing


@pytest.mark.parametrize("weighting", ["flat", "root_length", "root_branches", "root_both"])
def test_all_weightings_of_the_encoder_can_be_asked_for(weighting: str) -> None:
    assert (
        parse_recipe(SMALL, "r.yaml", [f"loss.weighting={weighting}"]).loss.weighting == weighting
    )


@pytest.mark.parametrize(
    ("text", "where", "parts"),
    [
        ("", "r.yaml: ", ["empty", "model, data and output", "molmo-tune recipes NAME"]),
        ("# only a comment\n", "r.yaml: ", ["empty"]),
        ("\n- a\n- b\n", "r.yaml:2: ", ["a list with 2", "expected sections"]),
        ("hello\n", "r.yaml:1: ", ["'hello'", "expected sections"]),
        ("seed: 1\noptim: {lr: 1\n", "r.yaml:3: ", ["not YAML"]),
        ("seed: 1\n\tlr: 2\n", "r.yaml:2: ", ["not YAML"]),
        ("seed: 1\n---\nseed: 2\n", "r.yaml:2: ", ["not YAML"]),
        ("seed: 1\na: \x07\n", "r.yaml:2: ", ["character"]),
        (f"seed: {'[' * 5000}\n", "r.yaml:1: ", ["nested too deeply"]),
    ],
)
def test_texts_that_are_no_recipe(text: str, where: str, parts: list[str]) -> None:
    line = only_fault(text)
    assert line.startswith(where)
    for part in parts:
        assert part in line


def test_files_that_are_no_recipe(tmp_path: Path) -> None:
    latin, large = tmp_path / "latin.yaml", tmp_path / "large.yaml"
    latin.write_bytes("output: {dir: größe}\n".encode("latin-1"))
    large.write_bytes(b"#" * (LARGEST_FILE + 1))
    rows: list[tuple[Path | str, str]] = [
        (tmp_path / "none.yaml", "no such file"),
        (tmp_path, "a folder"),
        (latin, "save it as UTF-8"),
        (large, "larger than 1 MB"),
        ("a" * 5000, "cannot be read"),
    ]
    for path, part in rows:
        with pytest.raises(RecipeError, match=part) as caught:
            load_recipe(path)
        assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "line", "part"),
    [
        # a missing section is reported where the recipe starts, with what it needs
        ("# head\nseed: 1\n" + SMALL.replace("model:", "#"), "r.yaml:2: model: ", "it needs name"),
        (
            SMALL.replace("{dir: runs/x}", "{save_total_limit: 1}"),
            "r.yaml:3: output.dir: ",
            "Run folder",
        ),
        (SMALL.replace("format: jsonl, ", ""), "r.yaml:2: data.train.0.format: ", "is missing"),
        # what is there under a wrong name is not missing as well
        (SMALL.replace("name:", "nmae:"), "r.yaml:1: model.nmae: ", "model.name?"),
        (SMALL.replace("model:", "modle:"), "r.yaml:1: modle: ", "model?"),
        (
            SMALL.replace("model: {name: tiny}", "base_model: x"),
            "r.yaml:1: base_model: ",
            "model.n",
        ),
        (SMALL.replace("format:", "fromat:"), "r.yaml:2: data.train.0.fromat: ", "train.0.format?"),
        # an entry that is wrong does not make its list too short
        (SMALL.replace("jsonl,", "json,"), "r.yaml:2: data.train.0.format: ", "'jsonl'?"),
    ],
)
def test_missing_keys(text: str, line: str, part: str) -> None:
    found = only_fault(text)
    assert found.startswith(line)
    assert part in found


def test_rules_between_keys_hold_beside_other_faults() -> None:
    lines = faults_of(SMALL + "trainer: {max_steps: 9, foo: 1}\noptim: {lr: x, warmup_steps: 9}\n")
    assert [line.split(": ")[1] for line in lines] == [
        "trainer.foo",
        "optim.lr",
        "optim.warmup_steps",
    ]


@pytest.mark.parametrize(
    "appended",
    [
        "optim: {warmup_steps: 700}\ntrainer: {max_steps: -1}\n",  # judged against no default
        "optim: {warmup_steps: 700}\ntrainer: {mx_steps: 800}\n",
        "optim: {warmup_steps: 700}\ntrianer: {max_steps: 800}\n",
        "eval: {every_steps: 700}\ntrainer: {max_steps: x}\n",
        "optim: {warmup_steps: '700'}\n",
        "optim: {lr_vision: 1e-5}\nadapter: {targets: [vit]}\n",
        "trainer: {max_steps: !foo 800}\noptim: {warmup_steps: 700}\n",
    ],
)
def test_a_faulty_value_breaks_no_rule(appended: str) -> None:
    with_val = SMALL.replace("}]}", "}], val: [{format: jsonl, path: v.jsonl}]}")
    assert len(faults_of(with_val + appended)) == 1


def test_messages_stay_on_one_line() -> None:
    line = only_fault(SMALL + '"a\\nb\\e[31m": 1\n')
    assert line.startswith(r"r.yaml:4: a\nb\x1b[31m: no such key")
    assert only_fault(SMALL, ["seed=a\n\n  b"]).startswith(r"--set seed=a\n\n  b: seed: ")


WRONG_VALUES: tuple[object, ...] = (
    None,
    True,
    -1,
    0,
    1.5,
    10**30,
    "",
    "word",
    [],
    [[]],
    {},
    {"a": 1},
)


@pytest.mark.parametrize("key", list(all_keys()))
def test_no_reason_is_pydantics(key: str) -> None:
    """Whatever is wrong with whatever key, it is said in our words."""
    texts = [json.dumps(with_value(key, value)) for value in WRONG_VALUES]
    said = [message for text in texts for message in refusal(text)]
    assert len(said) >= 5
    for word in ("Input", "input", "valid ", "pydantic", "tuple", "Tuple", "dict", "str_"):
        assert word not in "\n".join(said)


# --- overrides ----------------------------------------------------------------------------------


def test_overrides_are_yaml_and_the_last_one_wins() -> None:
    recipe = parse_recipe(
        SMALL + "optim:\n",
        "r.yaml",
        [
            "optim.lr=1e-3",  # into a section that is empty
            "optim.lr=2e-3",
            "data.train.0.path=other.jsonl",
            "data.val=[{format: jsonl, path: v.jsonl}]",
            "data.val.0.loss_weight=3",
            "adapter.targets=[language, vision]",
            "adapter.targets.1=connector",
            "eval.every_steps=null",
            "output.dir=a=b",
            "model.name=yes",
        ],
    )
    assert recipe.optim.lr == 2e-3
    assert recipe.data.train[0].path == Path("other.jsonl")
    assert recipe.data.val[0].loss_weight == 3.0
    assert recipe.adapter.targets == ("language", "connector")
    assert recipe.eval.every_steps is None
    assert recipe.output.dir == Path("a=b")
    assert recipe.model.name == "yes"


def test_an_override_repairs_the_file() -> None:
    assert parse_recipe(SMALL + "seed: many\n", "r.yaml", ["seed=3"]).seed == 3


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("optim.lr", ["expected key=value"]),
        ("=3", ["expected key=value"]),
        ("optim..lr=3", ["expected key=value"]),
        ("optim.lrr=3", ["optim.lrr: ", "did you mean optim.lr?"]),
        ("learning_rate=3", ["use optim.lr"]),
        ("optim.lr=fast", ["optim.lr: ", "a number, not 'fast'"]),
        ("optim.lr=", ["not empty"]),
        ("optim.lr={a: 1", ["not YAML"]),
        ("optim.lr=!foo 3", ["tag !foo"]),
        ("optim={lr: 1, lr: 2}", ["optim.lr: ", "duplicate key"]),
        ("data.train.0.weight=0", ["data.train.0.weight: ", "greater than 0"]),
        ("data.train.1.path=x", ["data.train has 1 entry, numbered 0"]),
        ("data.val.0.path=x", ["data.val has no entries"]),
        ("data.train.path=x", ["data.train has 1 entry"]),
        ("adapter.targets.0=vision", ["adapter.targets has no entries"]),
        ("0=x", ["the recipe has no entries"]),
        ("model.name.x=1", ["model.name has a single value"]),
        ("data.train.0={format: jsonl}", ["data.train.0.path: is missing"]),
        ("optim.warmup_steps=600", ["optim.warmup_steps: must be less than", "(600)"]),
    ],
)
def test_bad_overrides(override: str, parts: list[str]) -> None:
    line = only_fault(SMALL, [override])
    assert line.startswith(f"--set {override}: ")
    for part in parts:
        assert part in line


def test_overrides_follow_the_file_as_they_were_typed() -> None:
    lines = faults_of(SMALL + "sed: 1\n", ["seed=x", "oops", "optim.lr=x"])
    starts = [line.split(": ")[0] for line in lines]
    assert starts == ["r.yaml:4", "--set seed=x", "--set oops", "--set optim.lr=x"]


# --- names from elsewhere -----------------------------------------------------------------------


def test_foreign_names_lead_to_keys_that_exist() -> None:
    assert len(FOREIGN_KEYS) >= 40
    assert set(FOREIGN_KEYS.values()) <= set(all_keys())
    assert set(_REMARKS) <= set(FOREIGN_KEYS)


def test_foreign_names_are_foreign_and_listed_once() -> None:
    listed = [name for names in _OURS_TO_THEIRS.values() for name in names.split()]
    assert len(listed) == len(set(listed))
    assert not set(listed) & {key.rpartition(".")[2] for key in all_keys()}


@pytest.mark.parametrize("theirs", list(FOREIGN_KEYS))
def test_every_foreign_name_is_answered(theirs: str) -> None:
    assert f"; use {FOREIGN_KEYS[theirs]}" in only_fault(SMALL, [f"{theirs}=1"])


def test_foreign_words_lead_to_choices_that_exist() -> None:
    schema = json.dumps(recipe_json_schema())
    for ours in FOREIGN_VALUES.values():
        assert f'"{ours}"' in schema


# --- saving -------------------------------------------------------------------------------------

TREES = st.fixed_dictionaries(
    {
        "model": st.fixed_dictionaries({"name": st.text(min_size=1)}),
        "data": st.fixed_dictionaries(
            {
                "train": st.lists(
                    st.fixed_dictionaries(
                        {
                            "format": st.sampled_from(list(FORMAT_MODULES)),
                            "path": st.text().map(Path),
                            "media": st.none() | st.text().map(Path),
                            "template": st.text(min_size=1),
                            "weight": st.none() | st.floats(1e-300, 1e300),
                        }
                    ),
                    min_size=1,
                    max_size=2,
                ),
            }
        ),
        "optim": st.fixed_dictionaries(
            {"lr": st.floats(0, exclude_min=True, allow_infinity=False), "eps": st.just(1e20)}
        ),
        "trainer": st.fixed_dictionaries({"devices": st.integers(1) | st.just("auto")}),
        "output": st.fixed_dictionaries(
            {"dir": st.sampled_from(["yes", "1e-4", "null", "2024-01-01", "1:30", "<<", "a: b"])}
        ),
    }
)


@settings(max_examples=150, deadline=None)
@given(TREES)
def test_what_is_dumped_loads_to_an_equal_recipe(tree: dict[str, Any]) -> None:
    recipe = Recipe.model_validate(tree)
    assert parse_recipe(dump_recipe(recipe), "dumped.yaml") == recipe


def test_the_dump_names_every_key_and_reads_alike_under_both_yaml_versions() -> None:
    text = dump_recipe(parse_recipe(SMALL.replace("runs/x", "'1e-4'"), "r.yaml"))
    reading = read_yaml(text)
    assert yaml.safe_load(text) == reading.value
    assert {dotted(path) for path in reading.lines if path} >= {
        key for key in all_keys() if not key.startswith(("data.val.0", "preference."))
    }


def test_the_schema_describes_every_key() -> None:
    schema = recipe_json_schema()

    def walk(node: dict[str, Any], prefix: str) -> dict[str, str]:
        found = {}
        for name, inner in node.get("properties", {}).items():
            listed = "items" in inner
            whole = inner["items"] if listed else inner
            reference = next(
                (w["$ref"] for w in (whole, *whole.get("anyOf", ())) if "$ref" in w), ""
            )
            section = schema["$defs"][reference.removeprefix("#/$defs/")] if reference else {}
            found[prefix + name] = inner.get("description") or section["description"]
            if section:
                assert section["additionalProperties"] is False
                found |= walk(section, f"{prefix}{name}." + ("0." if listed else ""))
        return found

    assert walk(schema, "") == {key: field.description for key, field in all_keys().items()}
    assert schema["required"] == ["model", "data", "output"]
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["title"] == "molmo-tune recipe"


def test_the_schema_is_valid_and_agrees_with_the_loader() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = recipe_json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    assert validator.is_valid(read_yaml(dump_recipe(parse_recipe(SMALL, "r.yaml"))).value)
    for bad in ("optim: {lr: -1}", "optim: {lrr: 1}", "adapter: {targets: [vision, vision]}"):
        assert not validator.is_valid(read_yaml(SMALL + bad).value)
        assert faults_of(SMALL + bad)


def test_every_key_is_documented() -> None:
    undocumented = [key for key, field in all_keys().items() if not field.description]
    assert undocumented == []


# --- bundled files ------------------------------------------------------------------------------


@pytest.fixture(params=["checkout", "wheel"])
def installed(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A package folder with two bundled recipes; returns the folder that holds them."""
    package = tmp_path / "site" / "molmo_tune"
    root = package / "_bundled" if request.param == "wheel" else package.parent
    folder = root / "recipes"
    folder.mkdir(parents=True)
    (folder / "tracking.yaml").write_text(SMALL)
    (folder / "pointing.yaml").write_text(SMALL)
    if request.param == "wheel":  # another project's folder beside the installed package
        (package.parent / "recipes").mkdir()
        (package.parent / "recipes" / "cake.yaml").write_text("")
    monkeypatch.setattr(bundled_module, "_PACKAGE", package)
    monkeypatch.chdir(tmp_path)
    return folder


def test_a_bare_name_is_the_bundled_file(installed: Path) -> None:
    assert list_bundled("recipes") == ("pointing", "tracking")
    assert bundled("recipes", "tracking") == installed / "tracking.yaml"
    assert bundled("recipes", "tracking.yaml") == installed / "tracking.yaml"


def test_a_path_is_the_users_file(installed: Path, tmp_path: Path) -> None:
    assert bundled("recipes", "./tracking.yaml") == Path("tracking.yaml")
    assert bundled("recipes", "no/such/file") == Path("no/such/file")
    (tmp_path / "tracking.yaml").write_text(SMALL)
    assert bundled("recipes", "tracking.yaml") == Path("tracking.yaml")
    assert bundled("recipes", "tracking") == installed / "tracking.yaml"


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("trakcing", ["one of pointing, tracking", "did you mean tracking?"]),
        ("xyzzy.yaml", ["xyzzy.yaml: no such file", "one of pointing, tracking"]),
    ],
)
@pytest.mark.usefixtures("installed")
def test_an_unknown_bare_name_lists_the_known_ones(name: str, parts: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        bundled("recipes", name)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.usefixtures("installed")
def test_a_build_without_templates_says_so() -> None:
    assert list_bundled("data_templates") == ()
    with pytest.raises(UserError, match="this build has no data templates"):
        bundled("data_templates", "counting")


# --- cost ---------------------------------------------------------------------------------------


def output_of(code: str) -> str:
    """What a fresh interpreter prints, started where the package can be imported."""
    root = Path(bundled_module.__file__).parents[2]
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout


def test_the_room_needs_nothing_heavy() -> None:
    modules = sorted(Path(bundled_module.__file__).parent.glob("*.py"))
    names = [f"molmo_tune.recipe.{path.stem}" for path in modules if path.stem != "__init__"]
    assert len(names) >= 10
    code = f"import sys, {', '.join(names)}\nprint('\\n'.join(sys.modules))"
    loaded = set(output_of(code).split())
    assert set(names) <= loaded
    assert not loaded & {"torch", "transformers", "numpy", "lightning", "rich", "jinja2"}


def test_listing_bundled_files_needs_not_even_pydantic() -> None:
    code = "import sys, molmo_tune.recipe.bundled\nprint('pydantic' in sys.modules)"
    assert output_of(code).strip() == "False"


def test_a_short_run_needs_no_warmup_setting() -> None:
    """Left alone, the warm-up follows the length of the run."""
    recipe = parse_recipe(SMALL, "recipe.yaml", ["trainer.max_steps=20"])
    assert recipe.trainer.max_steps == 20
    assert recipe.optim.warmup_steps is None


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["adapter.method=full", "model.quantize=nf4"], "full changes the base weights"),
        (["adapter.method=pissa", "model.quantize=int8"], "pissa changes the base weights"),
        (["adapter.method=dora", "model.quantize=int8"], "cannot compute from int8"),
        (["adapter.method=full", "adapter.rslora=true"], "ignores adapter.rslora"),
        (["adapter.method=full", "optim.lora_plus_ratio=4"], "no A and B matrices"),
        (["optim.weight_decay_vision=0.1"], "adapter.targets lacks vision"),
        (
            ["data.val=[{format: jsonl, path: v.jsonl, weight: 2}]"],
            "data.val.0.weight: has no effect",
        ),
        (
            ["data.train.0.weight=2", "preference.from_run=runs/x", "adapter.dropout=0"],
            "data.train.0.weight: is not supported with preference",
        ),
    ],
)
def test_settings_that_exclude_each_other(overrides: list[str], reason: str) -> None:
    assert reason in only_fault(SMALL, overrides)
