"""Questions and answers per family: worked out by hand, refused when they could be wrong.

Expected texts follow from the written format (200×100 pixels: a thousandth is 0.2 px across and
0.1 px down) and were not produced by running the code.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from molmo_tune.errors import UserError
from molmo_tune.labels.formats.jsonl import read_jsonl, write_jsonl
from molmo_tune.labels.sample import (
    Annotation,
    Box,
    Dialogue,
    Instance,
    Keypoints,
    Mask,
    Media,
    Observation,
    Point,
    Polygon,
    Sample,
    Shape,
    Span,
    Track,
)
from molmo_tune.media.clip import SampledTimes
from molmo_tune.recipe.bundled import list_bundled
from molmo_tune.templates import tracking as tracking_family
from molmo_tune.templates.alignment import grid_moments, shows_rate
from molmo_tune.templates.conversations import Conversation
from molmo_tune.templates.exhaustive import NOT_EXHAUSTIVE
from molmo_tune.templates.questions import ask
from molmo_tune.templates.template import Template, load_template
from molmo_tune.templates.wording import draw, mentioning

VECTORS = Path(__file__).parent / "data" / "vectors"
SIZE = (200, 100)
SEEN = SampledTimes((0.0, 0.5, 1.0, 1.5), (0, 5, 10, 14), SIZE, 1.5)


def track(id: str, label: str, places: dict[int, Any], hidden: tuple[int, ...] = ()) -> Track:
    """Frame number (ten per second) to the place of a point, or to a shape."""
    rows = (
        Observation(k / 10, k, at if isinstance(at, Point | Box) else Point(at), k in hidden)
        for k, at in places.items()
    )
    return Track(id, label, tuple(rows))


KOI = track("7", "koi", {0: (100, 50), 5: (120, 50), 10: (140, 50), 14: (160, 50)})
SHY_KOI = track("9", "koi", {5: (20, 10), 10: (20, 10), 14: (20, 10)}, hidden=(14,))
FROG = track("3", "frog", {10: (200, 100)})
GOALS = (Span("goal", 0.9, 9.0), Span("goal", 0.2, 1.26))


def video(*notes: Annotation, exhaustive: tuple[str, ...] = ()) -> Sample:
    return Sample("clip", Media("video", (Path("clip.mp4"),)), notes, exhaustive)


def images(*notes: Annotation, count: int = 1, exhaustive: tuple[str, ...] = ()) -> Sample:
    paths = tuple(Path(f"{k}.png") for k in range(count))
    return Sample("picture", Media("image", paths), notes, exhaustive)


def template(task: str, question: str, **keys: Any) -> Template:
    return Template.model_validate({"task": task, "questions": [question], **keys})


def asked(
    sample: Sample, form: Template, sizes: tuple[tuple[int, int], ...] = (SIZE,), seed: int = 0
) -> tuple[list[Conversation], list[tuple[str, str]]]:
    is_video = sample.media.kind == "video"
    conversations, skipped = ask(
        sample, form, SEEN if is_video else None, () if is_video else sizes, seed
    )
    return conversations, [(one.label, one.reason) for one in skipped]


# ----------------------------------------------------------------------------- golden conversations

KOI_POINTS = '<points coords="0.0 1 500 500;0.5 2 100 100">koi</points>'
MUGS = (
    Instance("0", "Mug", Point((100, 50))),
    Instance("1", "Mug", Box((0, 0, 40, 20))),
)
FAR_MUGS = (Instance("0", "Mug", Point((100, 50))), Instance("1", "Mug", Point((50, 25)), 2))
THREE = (SIZE, (400, 100), (100, 100))
COUNTED = {"exhaustive": ("koi",)}
QUIZ = Dialogue("Which?", "B", options=("red", "blue"))

GOLDEN: list[tuple[str, Sample, Template, list[tuple[str, str]]]] = [
    (
        "video point: each object where it is first seen",
        video(KOI, SHY_KOI),
        template("video_pointing", "Where is the {{ label }}?"),
        [("Where is the koi?", KOI_POINTS)],
    ),
    (
        "video point, then count",
        video(KOI, SHY_KOI, **COUNTED),
        template("video_pointing", "How many {{ label }}?", mode="point_count"),
        [("How many koi?", f"Counting the {KOI_POINTS} shows a total of 2.")],
    ),
    (
        "video count, then point",
        video(KOI, SHY_KOI, **COUNTED),
        template("video_pointing", "Count {{ label }}.", mode="count_point"),
        [("Count koi.", f"There are 2 {KOI_POINTS}.")],
    ),
    (
        "video count only",
        video(KOI, SHY_KOI, **COUNTED),
        template("video_pointing", "Number of {{ label }}?", mode="count"),
        [("Number of koi?", "2")],
    ),
    (
        "image point: by x, a box by its center, the label in lower case",
        images(*MUGS),
        template("image_pointing", "Find {{ label }}.", answer_label="{{ label | lower }}"),
        [("Find Mug.", '<points coords="1 1 100 100 2 500 500">mug</points>')],
    ),
    (
        "image point, then count: also one object is There are/a total of",
        images(MUGS[0], exhaustive=("Mug",)),
        template("image_pointing", "How many {{ label }}?", mode="point_count"),
        [
            (
                "How many Mug?",
                'Counting the <points coords="1 1 500 500">Mug</points> shows a total of 1.',
            )
        ],
    ),
    (
        "several images: those without the label are left out and keep their number",
        images(*FAR_MUGS, count=3),
        template("image_pointing", "Find {{ label }}."),
        [("Find Mug.", '<points coords="1 1 500 500;3 2 500 250">Mug</points>')],
    ),
    (
        "several images, count then point, images not named",
        images(*FAR_MUGS, count=3, exhaustive=("Mug",)),
        template("image_pointing", "Count {{ label }}.", mode="count_point"),
        [("Count Mug.", 'There are 2 <points coords="1 1 500 500;3 2 500 250">Mug</points>.')],
    ),
    (
        "tracking at the default rate, not said",
        video(KOI, SHY_KOI),
        template("tracking", "Track the {{ label }}."),
        [
            (
                "Track the koi.",
                '<tracks coords="0.0 1 500 500;0.5 1 600 500 2 100 100;'
                '1.0 1 700 500 2 100 100;1.5 1 800 500">koi</tracks>',
            )
        ],
    ),
    (
        "tracking at another rate, said",
        video(KOI, SHY_KOI),
        template("tracking", "Track the {{ label }} in {{ fps }} FPS.", fps=1),
        [
            (
                "Track the koi in 1 FPS.",
                '<tracks coords="0.0 1 500 500;1.0 1 700 500 2 100 100">koi</tracks>',
            )
        ],
    ),
    (
        "start and end: the style's tag in front, no end at a hidden moment",
        video(KOI, SHY_KOI),
        template("tracking_start_end", "Ends of {{ label }}?"),
        [
            (
                "video_point_ground_start_end: Ends of koi?",
                '<tracks coords="0.0 1 500 500;0.5 2 100 100;1.0 2 100 100;1.5 1 800 500">'
                "koi</tracks>",
            )
        ],
    ),
    (
        "single point: the question holds the first point, the answer goes on after it",
        video(KOI, SHY_KOI),
        template("single_point_tracking", "Go on from {{ input_points }} in {{ fps }} FPS."),
        [
            (
                "video_single_point_track_per_frame: Go on from "
                '<points coords="0.0 1 500 500">koi</points> in 2 FPS.',
                '<tracks coords="0.5 1 600 500;1.0 1 700 500;1.5 1 800 500">koi</tracks>',
            ),
            (
                "video_single_point_track_per_frame: Go on from "
                '<points coords="0.5 1 100 100">koi</points> in 2 FPS.',
                '<tracks coords="1.0 1 100 100">koi</tracks>',
            ),
        ],
    ),
    (
        "when: spans sorted, tenths of a second, cut at the last moment shown",
        video(*GOALS),
        template("event_times", "When does {{ label }} happen?"),
        [
            (
                "video_short_answer: When does goal happen?",
                "Segments: [0.2-1.3], [0.9-1.5]",
            )
        ],
    ),
    (
        "what then",
        video(Span("a koi leaps", 0.5, 1.0)),
        template("event_captions", "What happens from {{ start }} to {{ end }} seconds?"),
        [("What happens from 0.5 to 1.0 seconds?", "a koi leaps")],
    ),
    (
        "long video caption: no tag",
        video(Dialogue("", "A pond.")),
        template("captions", "Describe the video.", style="video_long_caption"),
        [("Describe the video.", "A pond.")],
    ),
    (
        "motion caption: a tag",
        video(Dialogue("", "They swim.", "video_motion_caption")),
        template("captions", "What moves?", style="video_motion_caption"),
        [("video_motion_caption: What moves?", "They swim.")],
    ),
    (
        "image caption",
        images(Dialogue("", "A mug.", "short_caption")),
        template("captions", "Caption?", style="short_caption"),
        [("Caption?", "A mug.")],
    ),
    (
        "dialogue with the style of the labels",
        images(Dialogue("What year?", "1969", "vqa2"), Dialogue("Who?", "Ann")),
        template("dialogue", "{{ question }}"),
        [("vqa2: What year?", "1969"), ("Who?", "Ann")],
    ),
    (
        "dialogue with the style of the template",
        video(Dialogue("Where?", "left")),
        template("dialogue", "{{ question }}", style="video_short_answer"),
        [("video_short_answer: Where?", "left")],
    ),
    (
        "multiple choice: letters on lines of their own, letter and text answered",
        images(QUIZ),
        template("multiple_choice", "{{ question }}\n{{ options }}"),
        [("Which?\nA. red\nB. blue", "B. blue")],
    ),
    (
        "multiple choice, letter only",
        images(QUIZ),
        template("multiple_choice", "{{ question }}\n{{ options }}", choice="letter"),
        [("Which?\nA. red\nB. blue", "B")],
    ),
    (
        "multiple choice, text only; the label gives the text",
        images(Dialogue("Which?", "Red", options=("red", "blue"))),
        template("multiple_choice", "{{ question }}\n{{ options }}", choice="text"),
        [("Which?\nA. red\nB. blue", "red")],
    ),
]
NOTHING_THERE = video(KOI, exhaustive=("koi", "newt"))
GOLDEN += [
    (
        f"absent: {task} {keys}",
        NOTHING_THERE,
        template(task, "{{ label }}?", ask_absent=1, **keys),
        [(f"{tag}newt?", "There are none.")],
    )
    for task, tag, keys in (
        ("video_pointing", "", {}),
        ("video_pointing", "", {"mode": "count"}),
        ("tracking", "", {}),
        ("tracking_start_end", "video_point_ground_start_end: ", {}),
        ("event_times", "video_short_answer: ", {}),
    )
]


@pytest.mark.parametrize(("name", "sample", "form", "expected"), GOLDEN, ids=lambda v: str(v)[:40])
def test_golden_conversations(
    name: str, sample: Sample, form: Template, expected: list[tuple[str, str]], monkeypatch: Any
) -> None:
    monkeypatch.setattr(tracking_family, "LATER_START_FRACTION", 0.0)
    conversations, skipped = asked(sample, form, THREE[: len(sample.media.paths)])
    if name.startswith("absent"):
        conversations = [c for c in conversations if c.label == "newt"]
    else:
        assert skipped == []
    assert [(c.question, c.answer) for c in conversations] == expected


STYLES = {
    "video_point_track_per_frame": ("tracking", "Track {{ label }} in {{ fps }} FPS."),
    "video_point_ground_start_end": ("tracking_start_end", "Ends of {{ label }}"),
    "video_single_point_track_per_frame": (
        "single_point_tracking",
        "Track {{ input_points }} in {{ fps }} FPS.",
    ),
}
EXAMPLES = [
    record
    for record in json.loads((VECTORS / "format-vectors.json").read_text())
    if record["task"] == "track_example"
]


@pytest.mark.parametrize("record", EXAMPLES, ids=range(len(EXAMPLES)))
def test_track_families_are_the_references(record: dict[str, Any], monkeypatch: Any) -> None:
    """Whole examples of Ai2's formatter, labels with times only, through the templates."""
    monkeypatch.setattr(tracking_family, "LATER_START_FRACTION", 0.0)
    given, output = record["input"], record["output"]
    rows: dict[int, list[Observation]] = {}
    for frame in given["frames"]:
        for point in frame["points"]:
            shape = Point(tuple(point["point"]))
            seen = Observation(frame["time"], -1, shape, point.get("occluded", False))
            rows.setdefault(point["id"], []).append(seen)
    tracks = (Track(str(id), given["label"], tuple(seen)) for id, seen in rows.items())
    times = given["video_timestamps"]
    shown = SampledTimes(
        tuple(times), tuple(range(len(times))), (given["width"], given["height"]), times[-1]
    )
    task, question = STYLES[given["style"]]
    rate = {} if task == "tracking_start_end" else {"fps": given["sampling_fps"]}
    conversations, _ = ask(video(*tracks), template(task, question, **rate), shown, (), 0)
    assert conversations[0].answer == output["answer"]
    if rate:
        tag = f"{given['style']}: " if task == "single_point_tracking" else ""
        assert conversations[0].question == tag + output["prompt"]


# ------------------------------------------------------------------------- no wrong number, no none


def test_a_count_needs_exhaustive_labels_or_the_users_word() -> None:
    sample = video(KOI, SHY_KOI, FROG, exhaustive=("frog",))
    counting = template("video_pointing", "How many {{ label }}?", mode="count")
    conversations, skipped = asked(sample, counting)
    assert [(c.label, c.answer) for c in conversations] == [("frog", "1")]
    assert skipped == [("koi", NOT_EXHAUSTIVE)]
    trusting = template(
        "video_pointing", "How many {{ label }}?", mode="count", assume_exhaustive=True
    )
    conversations, skipped = asked(sample, trusting)
    assert [(c.label, c.answer) for c in conversations] == [("koi", "2"), ("frog", "1")]
    assert skipped == []
    assert not asked(sample, counting.model_copy(update={"mode": "point"}))[1]


def test_an_object_that_is_not_seen_makes_no_wrong_count() -> None:
    between = track("8", "koi", {2: (10, 10)})
    outside = track("8", "koi", {5: (500, 10)})
    counting = template("video_pointing", "How many {{ label }}?", mode="point_count")
    pointing = template("video_pointing", "Where is {{ label }}?")
    for unseen in (between, outside):
        sample = video(KOI, unseen, exhaustive=("koi",))
        conversations, skipped = asked(sample, counting)
        assert not conversations
        assert skipped[0][1] == "some of its objects are not visible, so a count would be wrong"
        conversations, skipped = asked(sample, pointing)
        assert conversations[0].answer == '<points coords="0.0 1 500 500">koi</points>'
        assert skipped == [("koi, object 8", "no sampled frame shows this object")]


def test_two_spellings_are_neither_counted_nor_absent() -> None:
    notes = (Instance("0", "Cat", Point((10, 10))), Instance("1", "cat", Point((20, 20))))
    sample = images(*notes, exhaustive=("Cat", "cat", " CAT", "dog"))
    counting = template("image_pointing", "How many {{ label }}?", mode="count", ask_absent=9)
    conversations, skipped = asked(sample, counting)
    assert [(c.label, c.answer) for c in conversations] == [("dog", "There are none.")]
    assert [label for label, _ in skipped] == ["Cat", "cat"]


def test_absence_is_drawn_from_exhaustive_labels_only_and_always_the_same() -> None:
    names = tuple(f"animal {k}" for k in range(8))
    form = template("image_pointing", "Where is {{ label }}?", ask_absent=3)
    here = Instance("0", "animal 0", Point((10, 10)))
    drawn = [
        tuple(c.label for c in asked(images(here, exhaustive=names), form, seed=seed)[0][1:])
        for seed in (0, 0, 1)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    assert all(len(set(labels)) == 3 and set(labels) <= set(names[1:]) for labels in drawn)
    assert len(asked(images(here), form)[0]) == 1
    assert len(asked(images(here, exhaustive=names), template("image_pointing", "{{ label }}"))[0])


labels = st.sampled_from(["koi", "Koi", "newt", "frog"])
frames = st.dictionaries(st.integers(0, 14), st.tuples(st.integers(0, 250), st.integers(0, 100)))
some_tracks = st.lists(st.builds(track, st.just("0"), labels, frames), max_size=5)


@given(some_tracks, st.lists(labels, max_size=3), st.sampled_from(["count", "count_point"]))
def test_whatever_is_stated_is_true(tracks: list[Track], exhaustive: list[str], mode: str) -> None:
    """Every number and every "none", for any labels, against a count in the plainest way."""
    form = template("video_pointing", "{{ label }}?", mode=mode, ask_absent=2)
    conversations, skipped = asked(video(*tracks, exhaustive=tuple(exhaustive)), form)
    for one in conversations:
        assert one.label in exhaustive
        there = sum(t.label.lower() == one.label.lower() for t in tracks)
        number = re.search(r"^(?:There are )?(\d+)", one.answer)
        assert (int(number[1]) if number else 0) == there
        assert (one.answer == "There are none.") == (there == 0)
    named = {c.label for c in conversations} | {label.split(",")[0] for label, _ in skipped}
    assert named >= {t.label for t in tracks}


def test_more_points_than_the_model_knows_are_refused() -> None:
    crowd = [Instance(str(k), "ant", Point((k, 50))) for k in range(61)]
    form = template("image_pointing", "Where is {{ label }}?")
    reason = "its answer exceeds max_points = {}"
    assert asked(images(*crowd), form)[1] == [("ant", reason.format(60))]
    assert len(asked(images(*crowd[:60]), form)[0]) == 1
    more = form.model_copy(update={"max_points": 61})
    assert len(asked(images(*crowd), more)[0]) == 1
    for task, num_points in (("tracking", 4), ("tracking_start_end", 2)):
        for limit, skipped in ((num_points - 1, [("koi", reason)]), (num_points, [])):
            short = template(task, "{{ label }}", max_points=limit)
            assert asked(video(KOI), short)[1] == [(k, r.format(limit)) for k, r in skipped]
    herd = [track(str(k), "ant", {0: (k, 1), 5: (k, 2)}) for k in range(61)]
    assert len(asked(video(*herd), template("tracking", "{{ label }}"))[0]) == 1


# ----------------------------------------------------------------------------- what cannot be asked

UNASKED: list[tuple[Sample, Template, list[tuple[str, str]]]] = [
    (
        video(track("0", "koi", {3: (1, 1)})),
        template("video_pointing", "{{ label }}"),
        [("koi", "no sampled frame shows it")],
    ),
    (
        images(Instance("0", "mug", Box((300, 0, 310, 9)))),
        template("image_pointing", "{{ label }}"),
        [("mug", "it is outside the image")],
    ),
    (
        video(KOI),
        template("tracking", "{{ label }} {{ fps }}", fps=3),
        [
            (
                "koi",
                "sampled frames miss some steps at 3 fps "
                "(clip too long for video.max_frames, or sampled too sparsely)",
            )
        ],
    ),
    (
        video(track("0", "koi", {5: (1, 1)})),
        template("tracking", "{{ label }} {{ fps }}", fps=1),
        [("koi", "it is visible only between the steps of the rate")],
    ),
    (
        video(FROG),
        template("single_point_tracking", "{{ input_points }}"),
        [
            (
                "frog, object 3",
                "no step of the rate shows this object after its given point",
            )
        ],
    ),
    (
        video(Span("blink", 0.6, 0.9), Span("flash", 0.49, 0.53), Span("late", 3.0, 4.0)),
        template("event_times", "{{ label }}"),
        [
            ("blink, from 0.6 s", "no sampled frame shows it"),
            ("flash, from 0.49 s", "rounds to 0 s"),
            ("late, from 3 s", "no sampled frame shows it"),
        ],
    ),
    (
        video(KOI, *GOALS, Dialogue("Who?", "Ann"), Instance("0", "net", Point((1, 1)))),
        template("captions", "Describe.", style="video_long_caption"),
        [
            ("koi", "task captions covers only captions"),
            ("goal", "task captions covers only captions"),
            ("Who?", "task captions covers only captions"),
            ("net", "task captions covers only captions"),
        ],
    ),
    (
        video(Dialogue("", "Pond."), QUIZ, Dialogue("Why?", " ")),
        template("dialogue", "{{ question }}"),
        [
            ("Why?", "its answer is empty"),
            ("Pond.", "task dialogue covers only open questions"),
            ("Which?", "task dialogue covers only open questions"),
        ],
    ),
    (
        images(Dialogue("", "A mug.", "short_caption")),
        template("captions", "Describe.", style="long_caption"),
        [("A mug.", "its style is short_caption, the template's is long_caption")],
    ),
    (
        images(Dialogue("Which?", "green", options=("red", "blue"))),
        template("multiple_choice", "{{ question }}{{ options }}"),
        [("Which?", "its answer matches no option")],
    ),
]


@pytest.mark.parametrize(("sample", "form", "reasons"), UNASKED, ids=range(len(UNASKED)))
def test_what_cannot_be_asked_is_named(
    sample: Sample, form: Template, reasons: list[tuple[str, str]]
) -> None:
    assert asked(sample, form) == ([], reasons)


def test_a_template_of_another_medium_is_an_error() -> None:
    for sample, form in (
        (images(), template("video_pointing", "{{ label }}")),
        (video(), template("image_pointing", "{{ label }}")),
        (images(), template("event_times", "{{ label }}")),
        (video(), template("captions", "Describe.", style="long_caption")),
        (images(), template("captions", "Describe.", style="video_long_caption")),
    ):
        with pytest.raises(UserError, match="with a template for"):
            asked(sample, form)


# ------------------------------------------------------------------------------------ what is drawn


def test_rates_are_those_that_are_seen_and_the_wording_says_them() -> None:
    form = Template.model_validate(
        {
            "task": "tracking",
            "fps": [1, 2, 3],
            "questions": ["Plain {{ label }}", "{{ label }} at {{ fps }}"],
        }
    )
    drawn = Counter()
    for seed in range(400):
        (one,), _ = asked(video(KOI), form, seed=seed)
        assert one.question == (f"koi at {one.fps}" if one.fps != 2 else one.question)
        assert one.answer.count(";") == (3 if one.fps == 2 else 1)
        drawn[one.fps, "Plain" in one.question] += 1
    assert set(drawn) == {(1, False), (2, False), (2, True)}
    assert abs(drawn[1, False] - 200) < 50
    assert abs(drawn[2, True] - 100) < 40


def test_a_fifth_of_the_given_points_is_not_the_first() -> None:
    form = template("single_point_tracking", "{{ input_points }} {{ fps }}")
    firsts = 0
    for seed in range(500):
        (one,), _ = asked(video(KOI), form, seed=seed)
        assert one.start is not None
        assert f'coords="{one.start.time_s} ' in one.question
        later = [g.split()[0] for g in re.split('[";]', one.answer)[1:-1]]
        assert all(float(time) > one.start.time_s for time in later)
        firsts += one.start.time_s == 0.0
    assert 400 <= firsts <= 460  # 0.8 and a third of 0.2


def test_questions_about_some_of_the_images() -> None:
    form = load_template("multi_image_pointing")
    named = 0
    for seed in range(300):
        (one,), _ = asked(images(*FAR_MUGS, count=3), form, THREE, seed=seed)
        if len(one.image_numbers) == 3:
            assert "image_" not in one.question
            continue
        named += 1
        assert ", ".join(f"image_{k}" for k in one.image_numbers) in one.question
        groups = re.findall(r'["; ]?(\d) \d 500', one.answer)
        assert groups == [str(k) for k in one.image_numbers if k != 2] != []
    assert 110 < named < 190
    (single,), _ = asked(images(*MUGS), form)
    assert "image" not in single.question


def test_families_of_wordings_get_half_each() -> None:
    wordings = ["a {{ x }}", "b {{ x }}", "c {{ x }}", "plain"]
    drawn = Counter(
        draw(mentioning(wordings, "x", str(k), needed=False), str(k)) for k in range(600)
    )
    assert 250 < drawn["plain"] < 350
    assert all(60 < drawn[w] < 140 for w in wordings[:3])
    assert mentioning(wordings[3:], "x", "", needed=True) == ()


def test_the_grid_of_a_rate() -> None:
    assert grid_moments((0.0, 0.5, 1.0, 1.005), 2) == {0: 0.0, 1: 0.5, 2: 1.0}
    assert grid_moments((0.0, 0.63, 1.26), 2) == {0: 0.0}
    assert shows_rate((0.0, 0.5, 1.0, 1.4), 2)
    assert shows_rate((0.0, 0.5, 1.0, 1.4), 1)
    assert not shows_rate((0.0, 0.5, 1.0, 1.4), 3)
    assert not shows_rate((0.0, 0.63, 1.26), 2)
    assert shows_rate((0.0,), 10)


# ----------------------------------------------------------------------------------- template files


def test_bundled_templates_have_several_wordings() -> None:
    for name in list_bundled("data_templates"):
        form = load_template(name)
        assert len(set(form.questions)) == len(form.questions)
        assert len(form.questions) >= 3 or name == "dialogue"


POINTING = "task: image_pointing\nquestions: ['Where is {{ label }}?']\n"
BAD_TEMPLATES = [
    # contents: the message after the path
    ("", "not a template"),
    ("[1]", "not a template"),
    ("task: image_pointing\n", "questions: Field required"),
    (POINTING.replace("image_", "picture_"), "line 1: task: Input should be"),
    (POINTING + "color: red\n", "line 3: color: Extra inputs are not permitted"),
    (POINTING + "mode: point\nmode: count\n", "mode: duplicate key"),
    (POINTING + "point: middle\n", "line 3: point: String should match pattern"),
    (POINTING + "point: 'keypoint:'\n", "line 3: point: String should match pattern"),
    (POINTING + "max_points: 0\n", "line 3: max_points: "),
    (POINTING + "max_points: '9'\n", "line 3: max_points: "),
    (POINTING + "ask_absent: -1\n", "line 3: ask_absent: "),
    (POINTING + "fps: 2\n", "fps does not apply to task image_pointing"),
    (POINTING + "style: vqa2\n", "style does not apply to task image_pointing"),
    (POINTING + "assume_exhaustive: true\n", "assume_exhaustive needs a mode that counts"),
    (
        "task: tracking\nquestions: ['{{ label }}']\nmode: count\n",
        "mode does not apply",
    ),
    ("task: tracking\nquestions: ['{{ label }}']\nfps: [2, 3]\n", "no question contains {{ fps }}"),
    ("task: tracking\nquestions: ['{{ label }}']\nfps: 11\n", "fps"),
    ("task: tracking\nquestions: ['{{ label }}']\nfps: true\n", "fps"),
    ("task: captions\nquestions: [Describe.]\n", "captions need a style: long_caption"),
    ("task: captions\nquestions: [Describe.]\nstyle: vqa2\n", "captions need a style"),
    ("task: captions\nquestions: [' ']\nstyle: long_caption\n", "is empty"),
    (
        "task: image_pointing\nquestions:\n- '{{ label }}'\n- Where?\n",
        "4: .*lacks label; expected {{ label }} in every question",
    ),
    ("task: dialogue\nquestions: ['{{ label }}']\n", "2: .*unknown variables: label"),
    (POINTING + "answer_label: '{{ name }}'\n", "unknown variables: name"),
    (POINTING.replace("label", "labl"), "2: .*unknown variables: labl"),
]
ESCAPES = [
    "{{ ''.__class__.__mro__ }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{% for i in range(10**9) %}{{ i }}{% endfor %}",
    "{{ range(9) }}",
    "{{ label.upper() }}",
    "{{ label['x'] }}",
    "{{ 10 ** 10 ** 10 }}",
    "{{ 'a' * 10**9 }}",
    "{{ label | center(10**9) }}",
    "{{ label | center(1000000000) }}",
    "{{ self }}",
    "{{ lipsum }}",
    "{{ cycler.__init__.__globals__ }}",
    "{{ label | attr('__class__') }}",
    "{% include '/etc/passwd' %}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{% set x = label %}{{ x }}",
    "{{ label",
    "{% if label %}",
    "{% if label %}" * 200 + "{% endif %}" * 200,
    "{{ " + "(" * 5000 + "label" + ")" * 5000 + " }}",
]
BAD_TEMPLATES += [
    (f"task: image_pointing\nquestions: [{json.dumps(escape + '{{ label }}')}]\n", ":2: ")
    for escape in ESCAPES
]


@pytest.mark.parametrize(("content", "message"), BAD_TEMPLATES, ids=range(len(BAD_TEMPLATES)))
def test_bad_templates_are_one_clear_error(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    with pytest.raises(UserError, match=re.escape(str(path)) + f".*{message}") as fault:
        load_template(str(path))
    assert "\n" not in str(fault.value)


def test_words_may_have_conditions_and_filters(tmp_path: Path) -> None:
    wording = "{% if label == 'koi' %}the {% endif %}{{ label | replace('_', ' ') | upper }}"
    assert asked(video(KOI), template("video_pointing", wording))[0][0].question == "the KOI"
    bomb = "{{ label" + " | replace('o', 'oooooooooo')" * 12 + " }}"
    with pytest.raises(UserError, match="more than 10000 characters"):
        asked(video(KOI), template("video_pointing", bomb))


# -------------------------------------------------------------------------------------------- JSONL


def test_jsonl_keeps_spans_captions_and_options(tmp_path: Path) -> None:
    sample = video(*GOALS, Span("instant", 1.0, 1.0), QUIZ, Dialogue("", "A pond.", "x"), KOI)
    path = tmp_path / "labels.jsonl"
    write_jsonl([sample], path)
    assert read_jsonl(path) == [sample]
    notes = json.loads(path.read_text())["annotations"]
    assert notes[0] == {"kind": "span", "label": "goal", "start_s": 0.9, "end_s": 9.0}
    assert notes[3]["options"] == ["red", "blue"]
    assert "options" not in notes[4]
    assert sample.labels() == ("goal", "instant", "koi")
    assert sample.labels(Track) == ("koi",)


BAD_NOTES = [
    ({"kind": "span", "label": "x", "start_s": 2, "end_s": 1}, "span.end_s is 1; expected seconds"),
    ({"kind": "span", "label": "x", "start_s": -1, "end_s": 1}, "span.start_s is -1"),
    ({"kind": "span", "label": "x", "end_s": 1}, "span has no start_s"),
    ({"kind": "span", "label": "x", "start_s": 0, "end_s": 1, "id": 1}, "unknown key 'id'"),
    ({"kind": "dialogue", "question": "?", "answer": "A", "options": ["a"]}, "2 to 26 distinct"),
    (
        {"kind": "dialogue", "question": "?", "answer": "A", "options": ["a", "A "]},
        "2 to 26 distinct",
    ),
    (
        {"kind": "dialogue", "question": "?", "answer": "C", "options": ["red", "blue"]},
        "text or letter of one option",
    ),
]


@pytest.mark.parametrize(("note", "message"), BAD_NOTES, ids=range(len(BAD_NOTES)))
def test_jsonl_bad_spans_and_options(tmp_path: Path, note: dict[str, Any], message: str) -> None:
    media = {"kind": "video", "paths": ["clip.mp4"]}
    record = {"format": "molmo-tune/1", "id": "a", "media": media, "annotations": [note]}
    path = tmp_path / "labels.jsonl"
    path.write_text(json.dumps(record) + "\n")
    with pytest.raises(UserError, match=f":1: .*{message}"):
        read_jsonl(path)


def test_jsonl_spans_need_a_video(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    write_jsonl([images(Span("goal", 0.0, 1.0))], path)
    with pytest.raises(UserError, match="a span in media of kind image; expected a video"):
        read_jsonl(path)


def test_every_shape_has_a_point() -> None:
    """A new shape must be given a point in `labels.points` and a choice in the template."""
    assert set(Shape.__args__) == {Point, Box, Polygon, Mask, Keypoints}
