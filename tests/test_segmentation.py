"""J&F against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from molmo_tune.grounding.segmentation import outline_agreement, overlap, score_masks


def square(left: int, size: int = 20, side: int = 100) -> np.ndarray:
    mask = np.zeros((side, side), bool)
    mask[40 : 40 + size, left : left + size] = True
    return mask


NOTHING = np.zeros((100, 100), bool)


@pytest.mark.parametrize(
    ("predicted", "truth", "j", "f"),
    [
        (square(40), square(40), 1.0, 1.0),
        (NOTHING, NOTHING, 1.0, 1.0),
        (NOTHING, square(40), 0.0, 0.0),
        (square(40), NOTHING, 0.0, 0.0),
        (square(10), square(70), 0.0, 0.0),
        # Two pixels apart, which the tolerance of ceil(0.008 · 141) = 2 pixels forgives.
        (square(42), square(40), 18 / 22, 1.0),
    ],
)
def test_one_frame(predicted: np.ndarray, truth: np.ndarray, j: float, f: float) -> None:
    assert overlap(predicted, truth) == pytest.approx(j)
    assert outline_agreement(predicted, truth) == pytest.approx(f)


def test_outlines_that_agree_in_part() -> None:
    """Moved by 10: an upright side counts only where a level side of the other is near."""
    # Of about 80 outline pixels, 11 + 2 per level side are near the other's outline, and of the
    # upright sides a few at the ends of one.
    level, upright = 2 * 13, 2 + 1
    share = (level + upright) / 80
    assert outline_agreement(square(50), square(40)) == pytest.approx(share, abs=0.03)


def test_a_video_is_the_mean_of_its_frames() -> None:
    score = score_masks([square(40), NOTHING], [square(40), square(40)])
    assert (score.j, score.f, score.j_and_f) == (0.5, 0.5, 0.5)


def test_other_numbers_or_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="0 ground-truth"):
        score_masks([], [])
    with pytest.raises(ValueError, match="ground-truth mask"):
        score_masks([square(40)], [square(40, side=90)])
