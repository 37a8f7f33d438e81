"""The scenes that the tiny base is pre-trained on: colored shapes that come, drift and go.

Frames are rendered at the size the model sees, as uint8 arrays. Objects of a clip differ in color
and are named by color and shape ("red circle"). Half of the time, a color has another name
("crimson circle"). These words consist of several tokens, as a user's words will, and a base that
only knows one-token words takes long to learn its first longer one. Half of the bodies are spotted,
because few objects that users point at have a single color. Backgrounds vary in color, gradient and
grain, so that the base does not mistake a background for a cue.

Limitations: writes no files, and does not render the demo's domain, which the base must not see
(`molmo_tune.tiny.pond`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

RGB = tuple[int, int, int]
Spot = tuple[float, float, float, RGB]
Frame = NDArray[np.uint8]

COLORS: dict[str, RGB] = {
    "red": (220, 40, 40),
    "orange": (245, 140, 20),
    "yellow": (240, 225, 40),
    "green": (40, 170, 60),
    "cyan": (40, 210, 215),
    "blue": (45, 75, 220),
    "purple": (130, 45, 170),
    "pink": (250, 130, 190),
    "white": (245, 245, 245),
    "black": (15, 15, 15),
}
OTHER_NAMES: dict[str, tuple[str, ...]] = {
    "red": ("scarlet", "crimson", "ruby"),
    "orange": ("amber", "tangerine", "apricot"),
    "yellow": ("lemon", "golden", "maize"),
    "green": ("emerald", "jade", "fern"),
    "cyan": ("aqua", "turquoise", "teal"),
    "blue": ("navy", "azure", "cobalt"),
    "purple": ("violet", "plum", "grape"),
    "pink": ("rose", "magenta", "blush"),
    "white": ("ivory", "snow", "chalk"),
    "black": ("ebony", "coal", "jet"),
}
SHAPES = ("circle", "square", "triangle", "diamond", "ring", "cross", "bar", "star")
OVERSAMPLING = 3


@dataclass(frozen=True, slots=True)
class Drift:
    """A straight path through some frames of a clip; the subclass sets the unit of positions."""

    start_xy: tuple[float, float]
    step_xy: tuple[float, float]
    first_frame: int
    last_frame: int

    def xy(self, frame: int) -> tuple[float, float]:
        """Return the position in a frame."""
        moved = frame - self.first_frame
        return (
            self.start_xy[0] + moved * self.step_xy[0],
            self.start_xy[1] + moved * self.step_xy[1],
        )


@dataclass(frozen=True, slots=True)
class Thing(Drift):
    """One object of a clip; positions and radius are fractions of the frame's side.

    ``hue`` is the basic name of its color, ``word`` the name used here. ``spots`` are ``(x, y,
    radius, color)``, in radii of the object and from its center.
    """

    hue: str
    word: str
    shape: str
    color: RGB
    radius: float
    angle: float
    spots: tuple[Spot, ...] = ()
    named_by_word: bool = False

    @property
    def name(self) -> str:
        """Name in a question: "crimson circle", or "crimson" alone."""
        return self.word if self.named_by_word else f"{self.word} {self.shape}"


def draw_clip(
    rng: np.random.Generator, *, num_frames: int, num_things: int, side: int
) -> tuple[list[Frame], list[Thing]]:
    """Return a clip of `num_frames` square frames, and its objects, all of different colors."""
    things = _place(rng, num_frames, num_things)
    background = _background(rng, side)
    grain = rng.uniform(0, 14)
    return [_draw(rng, background, grain, things, k, side) for k in range(num_frames)], things


def _place(rng: np.random.Generator, num_frames: int, num_things: int) -> list[Thing]:
    things: list[Thing] = []
    for hue in rng.permutation(list(COLORS))[:num_things]:
        shape = str(rng.choice(SHAPES))
        length = int(rng.integers(1, num_frames + 1))
        first = int(rng.integers(0, num_frames - length + 1))
        color = _tinted(rng, COLORS[hue], 18)
        start, step = _path(rng, things, length, first)
        things.append(
            Thing(
                start,
                step,
                first,
                first + length - 1,
                hue=str(hue),
                word=str(rng.choice(OTHER_NAMES[hue])) if rng.random() < 0.5 else str(hue),
                shape=shape,
                color=color,
                radius=float(rng.uniform(0.06, 0.13)),
                angle=float(rng.uniform(0, math.tau)),
                spots=_spots(rng) if rng.random() < 0.5 else (),
                named_by_word=bool(rng.random() < 0.3),
            )
        )
    return things


def _tinted(rng: np.random.Generator, color: RGB, max_change: int) -> RGB:
    red, green, blue = np.clip(
        np.array(color) + rng.integers(-max_change, max_change + 1, 3), 0, 255
    )
    return int(red), int(green), int(blue)


def _spots(rng: np.random.Generator) -> tuple[Spot, ...]:
    """Return one to four small discs of any color."""
    middle_gray = (128, 128, 128)
    return tuple(
        (
            float(rng.uniform(-0.6, 0.6)),
            float(rng.uniform(-0.6, 0.6)),
            float(rng.uniform(0.12, 0.28)),
            _tinted(rng, middle_gray, 127),
        )
        for _ in range(rng.integers(1, 5))
    )


def _path(
    rng: np.random.Generator, others: list[Thing], length: int, first: int
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return a start and a step that stay in the frame and, if possible, clear of the others."""
    for _ in range(30):
        start = rng.uniform(0.07, 0.93, 2)
        step = rng.uniform(-0.12, 0.12, 2)
        ends = start + step * (length - 1)
        if (ends < 0.05).any() or (ends > 0.95).any():
            continue
        if all(_clear(start, step, first, length, other) for other in others):
            break
    else:
        step = np.zeros(2)
    return (float(start[0]), float(start[1])), (float(step[0]), float(step[1]))


def _clear(
    start: NDArray[np.float64], step: NDArray[np.float64], first: int, length: int, other: Thing
) -> bool:
    for k in range(length):
        frame = first + k
        if not other.first_frame <= frame <= other.last_frame:
            continue
        ox, oy = other.xy(frame)
        if math.hypot(start[0] + k * step[0] - ox, start[1] + k * step[1] - oy) < 0.24:
            return False
    return True


def _background(rng: np.random.Generator, side: int) -> NDArray[np.float32]:
    """Return a flat color or a gradient, in midtones so that every color stands out."""
    a, b = rng.uniform(50, 205, 3), rng.uniform(50, 205, 3)
    if rng.random() < 0.5:
        b = a
    angle = rng.uniform(0, math.tau)
    ys, xs = np.mgrid[0:side, 0:side] / side - 0.5
    share = np.clip(0.5 + xs * math.cos(angle) + ys * math.sin(angle), 0, 1)[..., None]
    gray = rng.uniform(0, 1)
    mixed = a * (1 - share) + b * share
    return np.asarray(mixed * (1 - gray) + mixed.mean(-1, keepdims=True) * gray, np.float32)


def _draw(
    rng: np.random.Generator,
    background: NDArray[np.float32],
    grain: float,
    things: list[Thing],
    frame: int,
    side: int,
) -> Frame:
    noisy = background + rng.normal(0, grain, background.shape)
    image = Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))
    for thing in things:
        if thing.first_frame <= frame <= thing.last_frame:
            _paste(image, thing, thing.xy(frame), side)
    return np.array(image)


def _paste(image: Image.Image, thing: Thing, xy: tuple[float, float], side: int) -> None:
    size = max(4, math.ceil(2.4 * thing.radius * side))
    big = size * OVERSAMPLING
    mask = Image.new("L", (big, big))
    draw_shape(
        ImageDraw.Draw(mask), thing.shape, big / 2, thing.radius * side * OVERSAMPLING, thing.angle
    )
    body = Image.new("RGB", (big, big), thing.color)
    for x, y, radius, color in thing.spots:
        unit = thing.radius * side * OVERSAMPLING
        cx, cy, r = big / 2 + x * unit, big / 2 + y * unit, radius * unit
        ImageDraw.Draw(body).ellipse((cx - r, cy - r, cx + r, cy + r), fill=color)
    corner = (round(xy[0] * side - size / 2), round(xy[1] * side - size / 2))
    small = (size, size)
    image.paste(
        body.resize(small, Image.Resampling.BOX), corner, mask.resize(small, Image.Resampling.BOX)
    )


def draw_shape(
    draw: ImageDraw.ImageDraw, shape: str, center: float, radius: float, angle: float
) -> None:
    """Draw one shape in white around (center, center), reaching out to `radius` pixels."""
    c, r = center, radius
    if shape == "circle":
        draw.ellipse((c - r, c - r, c + r, c + r), fill=255)
    elif shape == "ring":
        draw.ellipse((c - r, c - r, c + r, c + r), fill=255)
        draw.ellipse((c - r / 2, c - r / 2, c + r / 2, c + r / 2), fill=0)
    elif shape == "cross":
        for turn in (0.0, math.pi / 2):
            draw.polygon(_rectangle(c, r, 0.3 * r, angle + turn), fill=255)
    elif shape == "bar":
        draw.polygon(_rectangle(c, r, 0.4 * r, angle), fill=255)
    else:
        draw.polygon(_regular(shape, c, r, angle), fill=255)


def _regular(shape: str, c: float, r: float, angle: float) -> list[tuple[float, float]]:
    if shape == "star":
        radii, turn = [r, 0.45 * r] * 5, angle
    elif shape == "triangle":
        radii, turn = [r] * 3, angle
    else:  # a square has level sides, a diamond is on its corner
        radii, turn = [r] * 4, math.pi / 4 if shape == "square" else 0.0
    step = math.tau / len(radii)
    return [
        (c + radius * math.cos(turn + k * step), c + radius * math.sin(turn + k * step))
        for k, radius in enumerate(radii)
    ]


def _rectangle(
    c: float, half_length: float, half_width: float, angle: float
) -> list[tuple[float, float]]:
    along = (math.cos(angle) * half_length, math.sin(angle) * half_length)
    across = (-math.sin(angle) * half_width, math.cos(angle) * half_width)
    return [
        (c + sa * along[0] + sb * across[0], c + sa * along[1] + sb * across[1])
        for sa, sb in ((1, 1), (1, -1), (-1, -1), (-1, 1))
    ]
