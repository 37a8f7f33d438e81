"""The preview shows the frames, tokens and rows of training; texts stay inside the image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from molmo_tune.cli import main
from molmo_tune.encoding.datasets import TrainingSet
from molmo_tune.encoding.media_inputs import resizing_of
from molmo_tune.encoding.sources import limits_of, read_items
from molmo_tune.media.resized_frames import read_resized_frames
from molmo_tune.model.loading import load_processor
from molmo_tune.pages import frames
from molmo_tune.pages.drawing import Mark, draw_image, frames_of_patches, place_text
from molmo_tune.pages.pack_map import MAX_ROWS, first_rows
from molmo_tune.pages.page import write_page
from molmo_tune.recipe.loader import load_recipe

LIMIT = "data.max_tokens=400"


@pytest.mark.parametrize("wide", [8, 45, 90])
@pytest.mark.parametrize("point", [(0, 0), (99, 0), (0, 99), (99, 99), (50, 50), (80, 97)])
def test_texts_are_never_cut_off(point: tuple[float, float], wide: int) -> None:
    left, top = place_text(point, (wide, 11), (100, 100))
    assert left >= 0
    assert top >= 0
    assert left + wide <= 100
    assert top + 11 <= 100


def test_frames_are_rebuilt_from_patches(pond_recipe: Path) -> None:
    """The rebuilt frames equal the resized ones, value by value."""
    recipe = load_recipe(pond_recipe, [])
    processor, limits = load_processor("tiny"), limits_of(recipe)
    items, _ = read_items(recipe.data.train, recipe, processor)
    patches = TrainingSet(items, processor, limits)[0].patches
    sampled, path = items[0].sampled, items[0].sample.media.paths[0]
    assert sampled is not None
    small = read_resized_frames(path, sampled.indices, resizing_of(processor), limits.reading)
    assert np.array_equal(frames_of_patches(patches), small.frames)


def test_frames_that_answers_name_come_first(
    pond_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe(pond_recipe, ["video.max_fps=10", "video.max_frames=16"])
    items, _ = read_items(recipe.data.train, recipe, load_processor("tiny"))
    item = next(item for item in items if len(item.conversations) > 1)
    assert item.sampled is not None
    points = frames._answer_points(item)
    moments = {one.point.frame_id for one in points}
    monkeypatch.setattr(frames, "MAX_FRAMES", len(moments) + 1)
    shown = frames._shown_frames(item.sampled.times_s, points)
    assert len(shown) == len(moments) + 1
    assert moments <= {round(item.sampled.times_s[number], 1) for number in shown}


def test_a_trail_joins_one_object_of_one_answer(pond_recipe: Path) -> None:
    recipe = load_recipe(pond_recipe, [])
    item = read_items(recipe.data.train, recipe, load_processor("tiny"))[0][0]
    answer = '<tracks coords="0.0 1 100 100 2 500 500;0.5 1 200 100;1.0 1 300 100">koi</tracks>'
    conversation = replace(item.conversations[0], answer=answer, label="koi")
    points = frames._answer_points(replace(item, conversations=(conversation, conversation)))
    marks = frames._marks_at(points, 1.0)
    assert [mark.trail for mark in marks] == [((16.0, 12.0), (32.0, 12.0))] * 2
    assert frames._marks_at(points, 0.0)[1].trail == ()


def test_marks_are_drawn_where_they_are() -> None:
    frame = np.zeros((50, 100, 3), np.uint8)
    plain = draw_image(frame)
    assert draw_image(frame, [Mark((50, 25), "#ff0000", "koi", ((10, 10),))]) != plain
    assert draw_image(frame, [Mark((50, 25), "#ff0000")]) != draw_image(
        frame, [Mark((52, 25), "#ff0000")]
    )


@pytest.mark.parametrize("packing", [False, True])
def test_rows_match_training(pond_recipe: Path, packing: bool) -> None:
    recipe = load_recipe(pond_recipe, [LIMIT, f"data.packing={str(packing).lower()}"])
    items, _ = read_items(recipe.data.train, recipe, load_processor("tiny"))
    rows = first_rows(items, recipe)
    widths = [sum(segment.percent for segment in row.segments) for row in rows]
    assert all(0 < width <= 100 for width in widths)
    if packing:
        assert len(rows) == MAX_ROWS
        assert max(len(row.segments) for row in rows) > 1
    else:
        assert sorted(segment.item for row in rows for segment in row.segments) == [0, 1, 2, 3]


def test_the_page_says_what_it_shows(
    pond_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "preview.html"
    call = ["preview", str(pond_recipe), "--out", str(page), "--samples", "2", "--set", LIMIT]
    assert main(call) == 0
    assert f"2 sequences in {page} (decoded in " in capsys.readouterr().out
    text = page.read_text(encoding="utf-8")
    assert "2 of 4 sequences." in text
    assert text.count('<section class="card"') == 2
    assert 'href="#s0"' in text
    assert "http" not in text, "the page is self-contained"


def test_very_tall_images_and_strange_names(tmp_path: Path) -> None:
    assert len(draw_image(np.zeros((30_000, 100, 3), np.uint8))) < 100_000
    page = tmp_path / "page.html"
    write_page("answers.html.j2", page, title="a", lead="caf\udce9.png <b>", cards=[])
    assert "caf\\udce9.png &lt;b&gt;" in page.read_text(encoding="utf-8")
    assert list(tmp_path.iterdir()) == [page]
