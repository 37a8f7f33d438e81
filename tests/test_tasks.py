"""Every task from a bundled template to tokens and to a score, on real media and the tiny model.

For each bundled template: it yields conversations on a fitting sample, they become one message tree
whose branches begin with the very tokens that inference is prompted with, and the answers that are
trained score full marks. Then, per task, what wrong answers score.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, get_args

import av
import numpy as np
import pytest
from PIL import Image

from molmo_tune.encoding.datasets import encode_questions, vision_of
from molmo_tune.encoding.items import Item, MediaLimits, plan_items
from molmo_tune.encoding.sample_encoder import encode_conversation, encode_tree
from molmo_tune.evaluation.evaluate import Evaluation, Record
from molmo_tune.evaluation.scores import Score
from molmo_tune.evaluation.scoring import score_answer
from molmo_tune.grounding.answers import format_options, read_choice
from molmo_tune.grounding.spans import format_spans, parse_spans
from molmo_tune.grounding.temporal import match_spans
from molmo_tune.labels.sample import (
    Annotation,
    Box,
    Dialogue,
    Instance,
    Media,
    Observation,
    Point,
    Sample,
    Span,
    Track,
)
from molmo_tune.model.loading import load_processor
from molmo_tune.recipe.bundled import list_bundled
from molmo_tune.templates.conversations import Conversation
from molmo_tune.templates.template import CaptionStyle, Task, Template, load_template

LIMITS = MediaLimits(max_frames=16, max_fps=2, max_crops=4)
CAPTIONS = tuple(
    Dialogue("", f"A {style.replace('_', ' ')}.", style) for style in get_args(CaptionStyle)
)
TEXTS = (
    Dialogue("What is it?", "a pond", "user_qa"),
    Dialogue("How many?", "4", "user_qa"),
    Dialogue("Which?", "blue", options=("red", "blue", "green")),
)


@pytest.fixture(scope="module")
def tiny() -> Any:
    return load_processor("tiny")


def square(x: float, y: float) -> Box:
    return Box((x - 10, y - 10, x + 10, y + 10))


def moving(id: str, label: str, frames: range, x: float, y: float) -> Track:
    rows = (Observation(k / 10, k, square(x + 2 * k, y)) for k in frames)
    return Track(id, label, tuple(rows))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    """A clip of 1.5 s, sampled at 0, 0.5, 1 and 1.5 s, with labels of every kind."""
    notes: tuple[Annotation, ...] = (
        moving("0", "koi", range(15), 20, 30),
        moving("1", "koi", range(4, 12), 90, 90),
        moving("2", "frog", range(5, 15), 60, 60),
        Span("jump", 0.4, 1.1),
        Span("jump", 0.0, 0.2),
        Span("ripple", 0.5, 1.5),
        *CAPTIONS,
        *TEXTS,
    )
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        for shade in range(15):
            frame = np.full((120, 160, 3), 10 * shade, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    media = Media("video", (path,))
    return Sample("clip", media, notes, ("koi", "frog", "newt", "splash"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    """Two images with labels of every kind."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    paths = tuple(folder / f"{name}.png" for name in ("one", "two"))
    for path, size in zip(paths, ((80, 60), (64, 48)), strict=True):
        pixels = rng.integers(0, 256, (size[1], size[0], 3), np.uint8)
        Image.fromarray(pixels).save(path)
    notes: tuple[Annotation, ...] = (
        Instance("0", "Mug", square(20, 30)),
        Instance("1", "Mug", square(60, 30)),
        Instance("2", "Mug", Point((40, 20)), 1),
        Instance("3", "spoon", square(20, 20), 1),
        *CAPTIONS,
        *TEXTS,
    )
    return Sample("pictures", Media("image", paths), notes, ("Mug", "spoon", "fork"))


def plan(sample: Sample, form: Template, tiny: Any, seed: int = 7) -> Item:
    done = plan_items([sample], form, tiny, LIMITS, max_tokens=16384, seed=seed)
    (item,) = done.items
    return item


def fitting(name: str, clip: Sample, pictures: Sample) -> Sample:
    form = load_template(name)
    is_image = form.task == "image_pointing" or name.startswith(("image", "multiple"))
    if not is_image:
        return clip
    if name.startswith("multi_"):
        return pictures
    one = tuple(n for n in pictures.annotations if getattr(n, "image_index", 0) == 0)
    media = replace(pictures.media, paths=pictures.media.paths[:1])
    return replace(pictures, media=media, annotations=one)


@pytest.mark.parametrize("name", list_bundled("data_templates"))
def test_bundled_templates_from_labels_to_tokens_and_scores(
    name: str, clip: Sample, pictures: Sample, tiny: Any
) -> None:
    item = plan(fitting(name, clip, pictures), load_template(name), tiny)
    assert item.conversations
    vision = vision_of(item, tiny, LIMITS)
    tree = encode_tree(tiny, "", [c.messages for c in item.conversations], vision)
    assert tree.num_tokens == item.num_tokens
    prompts = encode_questions(item, tiny, LIMITS)
    several = len(item.conversations) > 1
    for number, (one, prompt) in enumerate(zip(item.conversations, prompts, strict=True), start=1):
        branch = (tree.branch_ids == 0) | (tree.branch_ids == number) if several else slice(None)
        read = tree.input_ids[branch].tolist()
        assert read[: prompt.num_tokens] == prompt.input_ids.tolist()
        alone = encode_conversation(tiny, "", one.messages, vision)
        assert read == alone.input_ids.tolist()
        trained = alone.target_ids[alone.loss_weights > 0].tolist()
        assert tiny.tokenizer.decode(trained) == f"{one.answer}<|im_end|>"
        score = score_answer(item, one, one.answer)
        assert score.task == item.template.task
        assert score.f1 == pytest.approx(1) or not score.is_scored
        assert all(value == 1 for value in score.more.values())


def test_every_task_has_a_bundled_template() -> None:
    bundled = {load_template(name).task for name in list_bundled("data_templates")}
    assert bundled == set(get_args(Task))


# ------------------------------------------------------------------------------ what answers score


def question(sample: Sample, tiny: Any, label: str = "", **keys: Any) -> tuple[Item, Conversation]:
    """Return the first conversation about a label, from a template with these keys."""
    wording = {
        "dialogue": "{{ question }}",
        "multiple_choice": "{{ question }}\n{{ options }}",
        "captions": "Describe.",
        "event_captions": "{{ start }} {{ end }}",
        "single_point_tracking": "{{ input_points }} {{ fps }}",
    }.get(keys["task"], "{{ label }}")
    item = plan(sample, Template.model_validate({"questions": [wording], **keys}), tiny)
    return item, next(c for c in item.conversations if c.label == label)


def tags(kind: str, *groups: str) -> str:
    return f'<{kind} coords="{";".join(groups)}">x</{kind}>'


# In the clip (160×120) koi 0 moves from (20, 30) and koi 1 is at (100, 90) at 0.5 s.
VIDEO = {"task": "video_pointing"}
ANSWERS: list[tuple[dict[str, Any], str, str, dict[str, float]]] = [
    # template, label, answer: what it scores
    (VIDEO, "koi", tags("points", "0.0 1 125 250"), {"precision": 1, "recall": 0.5, "f1": 2 / 3}),
    (VIDEO, "koi", tags("points", "0.0 1 900 900"), {"f1": 0}),
    (VIDEO, "koi", tags("points", "0.2 1 125 250"), {"f1": 0}),
    (VIDEO, "koi", "There are none.", {"precision": 0, "recall": 0}),
    (VIDEO, "koi", '<points coords="0.0 1 125 250 2 9', {"precision": 1, "recall": 0.5}),
    (VIDEO | {"ask_absent": 2}, "newt", "There are none.", {"f1": 1}),
    (VIDEO | {"ask_absent": 2}, "newt", tags("points", "0.0 1 125 250"), {"f1": 0}),
    (VIDEO | {"mode": "count"}, "koi", "2", {"f1": 1, "count_accuracy": 1}),
    (
        VIDEO | {"mode": "count"},
        "koi",
        "3",
        {"f1": 0, "count_accuracy": 0, "count_close_accuracy": 1, "count_valid": 1},
    ),
    (VIDEO | {"mode": "count"}, "koi", "Several.", {"f1": 0, "count_valid": 0}),
    (
        VIDEO | {"mode": "point_count"},
        "koi",
        f"Counting the {tags('points', '0.0 1 125 250')} shows a total of 2.",
        {"f1": 2 / 3, "count_accuracy": 1},
    ),
    ({"task": "tracking"}, "koi", "I see a pond.", {"f1": 0, "hota": 0}),
    # one of two objects, in 0.0 the only one: precision 1 in the three frames that it is in
    (
        {"task": "tracking"},
        "koi",
        tags("tracks", "0.0 1 125 250", "0.5 1 188 250", "1.0 1 250 250", "1.5 1 300 250"),
        {"precision": 1, "recall": (1 + 0.5 + 0.5 + 1) / 4},
    ),
    (
        {"task": "tracking_start_end"},
        "frog",
        tags("tracks", "0.5 1 438 500", "1.0 1 500 500", "1.5 1 550 500"),
        {"precision": 2 / 3, "recall": 2 / 3},
    ),
    ({"task": "tracking", "ask_absent": 2}, "newt", "There are none.", {"f1": 1, "hota": 1}),
    ({"task": "event_times"}, "jump", "Segments: [0.4-1.1]", {"precision": 1, "recall": 0.5}),
    (
        {"task": "event_times"},
        "jump",
        "from 0.5 to 1.0 seconds",  # IoU 0.5 / 0.7 with the one, 0 with the other
        {"recall_at_0.3": 0.5, "recall_at_0.7": 0.5, "span_iou": 0.5 / 0.7 / 2},
    ),
    ({"task": "event_times"}, "jump", "There are none.", {"f1": 0, "span_iou": 0}),
    ({"task": "event_times", "ask_absent": 9}, "splash", "There are none.", {"f1": 1}),
    ({"task": "event_times", "ask_absent": 9}, "splash", "0.0 - 1.0", {"f1": 0, "span_iou": 0}),
    ({"task": "dialogue"}, "", "A  Pond", {"f1": 1, "exact_match": 1}),
    ({"task": "dialogue"}, "", "a pon", {"f1": 0, "exact_match": 0, "anls": 5 / 6}),
    ({"task": "multiple_choice"}, "", "b", {"choice_accuracy": 1, "f1": 1}),
    ({"task": "multiple_choice"}, "", "blue.", {"choice_accuracy": 1}),
    ({"task": "multiple_choice"}, "", "B. red", {"choice_accuracy": 0}),
    ({"task": "multiple_choice"}, "", "A. red", {"choice_accuracy": 0}),
    ({"task": "multiple_choice"}, "", "I cannot say.", {"choice_accuracy": 0}),
]


@pytest.mark.parametrize(("keys", "label", "said", "scores"), ANSWERS, ids=range(len(ANSWERS)))
def test_answers_about_a_clip(
    keys: dict[str, Any], label: str, said: str, scores: dict[str, float], clip: Sample, tiny: Any
) -> None:
    item, conversation = question(clip, tiny, label, **keys)
    score = score_answer(item, conversation, said)
    found = {"precision": score.precision, "recall": score.recall, "f1": score.f1, **score.more}
    assert {name: found[name] for name in scores} == pytest.approx(scores)


def test_a_continued_track_is_scored_for_its_own_object(clip: Sample, tiny: Any) -> None:
    """The answer for koi 0 scores 0 for koi 1, and the given point is not scored."""
    item, _ = question(clip, tiny, "koi", task="single_point_tracking")
    first, second, _ = item.conversations
    assert score_answer(item, first, first.answer).f1 == pytest.approx(1)
    assert score_answer(item, second, first.answer).f1 == 0
    repeated = first.answer.replace('coords="', 'coords="0.0 1 125 250;')
    assert score_answer(item, first, repeated).f1 < 1


def test_points_on_images_outside_the_question_are_wrong(pictures: Sample, tiny: Any) -> None:
    form = load_template("multi_image_pointing")
    everything = tags("points", "1 1 250 500 2 750 500", "2 3 625 417")
    seen = set()
    for seed in range(40):
        item = plan(pictures, form, tiny, seed)
        one = next(c for c in item.conversations if c.label == "Mug")
        score = score_answer(item, one, everything)
        expected = {(1, 2): 1, (1,): 2 / 3, (2,): 1 / 3}[one.image_numbers]
        assert (score.precision, score.recall) == pytest.approx((expected, 1))
        seen.add(one.image_numbers)
    assert len(seen) == 3


def test_image_counts_are_numbers_of_points(pictures: Sample, tiny: Any) -> None:
    item, one = question(pictures, tiny, "Mug", task="image_pointing", mode="count_point")
    said = f"There are 9 {tags('points', '1 1 250 500 2 750 500', '2 3 625 417')}."
    assert score_answer(item, one, said).more["count_accuracy"] == 1
    item, one = question(pictures, tiny, "Mug", task="image_pointing", mode="count")
    assert one.answer == "3"
    for answer, right in (("3", 1), ("three", 0), (said, 0), (said.replace("9 ", "3 "), 1)):
        assert score_answer(item, one, answer).f1 == right


# ------------------------------------------------------------------------------------- summing up


def record(score: Score, label: str = "x") -> Record:
    return Record("clip", label, "?", "truth", "said", False, score)


def numbers(value: object) -> Iterator[float]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from numbers(inner)
    elif isinstance(value, float):
        yield value


def test_a_summary_has_the_metrics_of_each_task() -> None:
    scores = (
        Score("video_pointing", 1.0, 0.5, 2 / 3),
        Score("tracking", 0.0, 0.0, 0.0, {"hota": 0.25}),
        Score("captions", math.nan, math.nan, math.nan),
    )
    summary = Evaluation(tuple(map(record, scores))).summary()
    assert summary["questions"] == 3
    assert summary["unscored"] == 1
    assert summary["f1"] == pytest.approx(1 / 3)
    assert summary["hota"] == 0.25
    assert set(summary["tasks"]) == {"video_pointing", "tracking", "captions"}
    assert summary["tasks"]["video_pointing"].keys() == {
        *("questions", "f1", "f1_low", "f1_high", "precision", "recall", "truncated_fraction")
    }


def test_captions_have_no_score(clip: Sample, tiny: Any) -> None:
    item, one = question(clip, tiny, task="captions", style="video_long_caption")
    score = score_answer(item, one, one.answer)
    assert not score.is_scored
    evaluation = Evaluation((record(score), record(score)))
    assert math.isnan(evaluation.summary()["f1"])
    plain = evaluation.to_json()
    assert plain["summary"]["f1"] is None
    assert plain["summary"]["unscored"] == 2
    assert plain["records"][0]["score"]["f1"] is None
    assert not any(map(math.isnan, numbers(plain["summary"])))
    json.dumps(plain, allow_nan=False)


# ------------------------------------------------------------------------------- spans and options

SPAN_TEXTS = [
    ("Segments: [1.5-4.0], [7.0-9.5]", [(1.5, 4.0), (7.0, 9.5)]),
    ("Segments: [1-4]", [(1.0, 4.0)]),
    ("1.50 - 4.00\n7.00 - 9.25", [(1.5, 4.0), (7.0, 9.25)]),
    ("Start: 1.50, end: 4.00", [(1.5, 4.0)]),
    ("It happens from 3 to 5.5 seconds.", [(3.0, 5.5)]),
    ("between 3s and 5 s", [(3.0, 5.0)]),
    ("There are none.", []),
    ("0:05-0:10", []),
    ("2024-05-01", []),
    ("5.0-3.0", []),
    ("1.5.2-3.0", []),
    ("", []),
]


@pytest.mark.parametrize(("text", "spans"), SPAN_TEXTS)
def test_spans_are_parsed(text: str, spans: list[tuple[float, float]]) -> None:
    assert parse_spans(text) == spans


def test_spans_are_formatted_and_matched_one_to_one() -> None:
    assert format_spans([(7.04, 9.0), (1.25, 4)]) == "Segments: [1.2-4.0], [7.0-9.0]"
    assert format_spans([]) == "There are none."
    twice = [(0.0, 10.0), (0.0, 9.0)]
    assert match_spans(twice, [(0.0, 10.0)], iou=0.5) == 1
    assert match_spans(twice, [(0.0, 9.0), (0.0, 10.0)], iou=1.0) == 2
    assert match_spans([], [(0.0, 1.0)], iou=0.5) == 0


CHOICES = [
    ("A", 0),
    ("b.", 1),
    ("(C)", 2),
    ("B. Deep Blue", 1),
    ("B) deep  blue.", 1),
    ("red", 0),
    ("A. deep blue", None),
    ("E", None),
    ("red or green", None),
    ("", None),
]


@pytest.mark.parametrize(("text", "index"), CHOICES)
def test_choices_are_parsed(text: str, index: int | None) -> None:
    assert read_choice(text, ("red", "Deep blue.", "green", "b")) == (3 if text == "b." else index)
    assert read_choice(text, ("red", "Deep blue.", "green")) == index


def test_options_are_lettered() -> None:
    assert format_options(["red", "blue"]) == ["A. red", "B. blue"]
    with pytest.raises(ValueError, match="27 options"):
        format_options(["x"] * 27)


@pytest.mark.parametrize("label", ["<im_patch>", "a koi<|im_end|>"])
def test_text_with_special_tokens_is_refused(tiny: Any, label: str) -> None:
    dialogues = (Dialogue("What is it?", label), Dialogue("What is it?", "A koi."))
    sample = Sample("s", Media("text"), dialogues)
    done = plan_items([sample], load_template("dialogue"), tiny, LIMITS, max_tokens=500, seed=0)
    assert done.num_conversations == 1
    assert [one.reason for one in done.refused] == [
        f"contains special token {label.removeprefix('a koi')!r}"
    ]
