"""The demo's domain, which the tiny base has never seen: animals in a murky pond, from above.

Names (none occurs in pre-training), bodies (patches, dots and legs instead of flat shapes) and
background (rippled water, pebbles) are all new. In each clip, two to four animals of different
kinds come and go, so each is a distractor for the others, and a stone of their size stays
throughout. The base does not know the words and points at any of them. The files are real: H.264
clips of 1 s at 160×120, and for each clip a CVAT-for-video XML file as that tool exports it. An
animal's box covers 3.5% of the frame.

Limitations: this module does not depend on the model. Replace it with your own data, and nothing
else in the demo changes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from molmo_tune.tiny.shapes import Drift

WIDTH, HEIGHT, FPS, NUM_FRAMES = 160, 120, 10, 10
SHOWN_FRAMES = (0, 5, 9)  # on screen at 0, 0.5 and 1 s, the times the model sees
BODY = 26  # pixels across: 26² is 3.5% of the frame
ANIMALS = ("koi", "newt", "frog", "crab", "duckling")
RGB = tuple[int, int, int]
_Disc = Callable[[float, float, float, float, RGB], None]
Parts = Callable[[_Disc], None]
Frame = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Swimmer(Drift):
    """One animal or stone of a clip; its box moves in a straight line, in pixels."""

    name: str
    sprite: Image.Image

    def box(self, frame: int) -> tuple[float, float, float, float]:
        """Return left, top, right and bottom in pixels."""
        x, y = self.xy(frame)
        return x - BODY / 2, y - BODY / 2, x + BODY / 2, y + BODY / 2


def write_pond(folder: Path, *, num_clips: int, seed: int, on_clip: Callable[[], None]) -> None:
    """Write `clips/*.mp4` and `labels/*.xml`, one file of each per clip."""
    clips, labels = folder / "clips", folder / "labels"
    for new in (clips, labels):
        new.mkdir(parents=True)
    for number in range(num_clips):
        rng = np.random.default_rng([seed, number])
        animals, stone = _populate(rng)
        name = f"pond_{number:03d}"
        _write_clip(clips / f"{name}.mp4", _frames(rng, [stone, *animals]))
        xml = cvat_xml(f"{name}.mp4", animals)
        (labels / f"{name}.xml").write_text(xml, encoding="utf-8")
        on_clip()


def _populate(rng: np.random.Generator) -> tuple[list[Swimmer], Swimmer]:
    """Return animals of different kinds that come and go, and a stone that stays throughout."""
    animals: list[Swimmer] = []
    for name in rng.permutation(ANIMALS)[: int(rng.integers(2, 5))]:
        length = int(rng.integers(1, len(SHOWN_FRAMES)))
        slot = int(rng.integers(0, len(SHOWN_FRAMES) - length + 1))
        first = SHOWN_FRAMES[slot] - (int(rng.integers(0, 3)) if slot else 0)
        last_slot = slot + length - 1
        late = int(rng.integers(0, 3)) if last_slot < len(SHOWN_FRAMES) - 1 else 0
        last = SHOWN_FRAMES[last_slot] + late
        sprite = _sprite(_ANIMAL_PARTS[name], rng)
        animals.append(_placed(rng, str(name), sprite, first, last, animals))
    sprite = _sprite(_stone(rng), rng)
    return animals, _placed(rng, "stone", sprite, 0, NUM_FRAMES - 1, animals, still=True)


def _placed(
    rng: np.random.Generator,
    name: str,
    sprite: Image.Image,
    first: int,
    last: int,
    others: list[Swimmer],
    still: bool = False,
) -> Swimmer:
    half = BODY / 2 + 1
    low, high = np.array([half, half]), np.array([WIDTH - half, HEIGHT - half])
    swimmer = None
    for _ in range(60):
        start = rng.uniform(low, high)
        step = np.zeros(2) if still else rng.uniform(-2.0, 2.0, 2)
        end = start + step * (last - first)
        if (end < low).any() or (end > high).any():
            continue
        swimmer = Swimmer(tuple(start), tuple(step), first, last, name=name, sprite=sprite)
        if all(_apart(swimmer, other) for other in others):
            break
    assert swimmer is not None
    return swimmer


def _apart(one: Swimmer, other: Swimmer) -> bool:
    shared = range(
        max(one.first_frame, other.first_frame), min(one.last_frame, other.last_frame) + 1
    )
    return all(math.dist(one.xy(k), other.xy(k)) > 1.25 * BODY for k in shared)


def _sprite(parts: Parts, rng: np.random.Generator) -> Image.Image:
    """Return a sprite of `BODY` pixels with transparency, rotated at random."""
    size = 4 * BODY
    image = Image.new("RGBA", (size, size))
    draw = ImageDraw.Draw(image)
    tint = rng.integers(-12, 13, 3)

    def color(rgb: RGB) -> tuple[int, ...]:
        return tuple(int(v) for v in np.clip(np.array(rgb) + tint, 0, 255))

    def disc(x: float, y: float, rx: float, ry: float, rgb: RGB) -> None:
        box = [(x - rx) * size, (y - ry) * size, (x + rx) * size, (y + ry) * size]
        draw.ellipse(box, fill=color(rgb))

    parts(disc)
    turned = image.rotate(float(rng.uniform(0, 360)), Image.Resampling.BICUBIC)
    return turned.resize((BODY, BODY), Image.Resampling.BOX)


def _stone(rng: np.random.Generator) -> Parts:
    """Return the parts of a round stone in one of several grays."""
    gray = int(rng.choice((60, 85, 110, 140, 175)))

    def parts(disc: _Disc) -> None:
        disc(0.5, 0.5, 0.4, 0.44, (gray, gray, gray))
        disc(0.42, 0.4, 0.2, 0.2, (gray + 20, gray + 20, gray + 22))

    return parts


def _koi(disc: _Disc) -> None:
    disc(0.5, 0.86, 0.2, 0.11, (250, 200, 222))
    disc(0.5, 0.45, 0.3, 0.43, (248, 140, 192))
    for x, y in ((0.42, 0.3), (0.6, 0.55), (0.45, 0.7)):
        disc(x, y, 0.08, 0.07, (252, 225, 238))


def _newt(disc: _Disc) -> None:
    disc(0.5, 0.8, 0.1, 0.19, (84, 40, 120))
    disc(0.5, 0.42, 0.33, 0.38, (96, 44, 138))
    for x, y in ((0.4, 0.25), (0.6, 0.38), (0.42, 0.55), (0.58, 0.65)):
        disc(x, y, 0.06, 0.06, (236, 214, 70))


def _frog(disc: _Disc) -> None:
    for x, y in ((0.16, 0.3), (0.84, 0.3), (0.18, 0.78), (0.82, 0.78)):
        disc(x, y, 0.14, 0.11, (44, 118, 34))
    disc(0.5, 0.52, 0.34, 0.38, (66, 158, 44))
    for x in (0.38, 0.62):
        disc(x, 0.22, 0.09, 0.09, (18, 30, 12))


def _crab(disc: _Disc) -> None:
    for x in (0.13, 0.87):
        disc(x, 0.25, 0.13, 0.16, (170, 26, 36))
    disc(0.5, 0.58, 0.42, 0.33, (200, 38, 44))
    disc(0.5, 0.62, 0.2, 0.12, (120, 14, 26))


def _duckling(disc: _Disc) -> None:
    disc(0.5, 0.6, 0.38, 0.36, (246, 222, 72))
    disc(0.5, 0.22, 0.2, 0.2, (250, 232, 110))
    disc(0.5, 0.07, 0.08, 0.07, (226, 120, 30))


_ANIMAL_PARTS: dict[str, Parts] = {
    "koi": _koi,
    "newt": _newt,
    "frog": _frog,
    "crab": _crab,
    "duckling": _duckling,
}


def _frames(rng: np.random.Generator, swimmers: list[Swimmer]) -> list[Frame]:
    base = np.array([58, 84, 92]) + rng.integers(-14, 15, 3)
    ys, xs = np.mgrid[0:HEIGHT, 0:WIDTH]
    angle, wave = rng.uniform(0, math.tau), rng.uniform(0.12, 0.25)
    pebbles = _pebbles(rng)
    grain = rng.normal(0, 5, (HEIGHT, WIDTH, 3))
    frames = []
    for k in range(NUM_FRAMES):
        ripple = 9 * np.sin(wave * (xs * math.cos(angle) + ys * math.sin(angle)) + 0.5 * k)
        water = base + ripple[..., None] + np.roll(grain, int(rng.integers(0, HEIGHT)), axis=0)
        image = Image.fromarray(np.clip(water, 0, 255).astype(np.uint8))
        image.paste(pebbles, (0, 0), pebbles)
        for one in swimmers:
            if one.first_frame <= k <= one.last_frame:
                left, top, *_ = one.box(k)
                image.paste(one.sprite, (round(left), round(top)), one.sprite)
        frames.append(np.array(image))
    return frames


def _pebbles(rng: np.random.Generator) -> Image.Image:
    """Return an image of unlabeled clutter on the ground."""
    image = Image.new("RGBA", (WIDTH, HEIGHT))
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(4, 9))):
        x, y, r = rng.uniform(0, WIDTH), rng.uniform(0, HEIGHT), rng.uniform(2, 6)
        gray = int(rng.integers(60, 110))
        draw.ellipse((x - r, y - 0.7 * r, x + r, y + 0.7 * r), fill=(gray, gray, gray - 8, 200))
    return image


def _write_clip(path: Path, frames: list[Frame]) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            "libx264", rate=FPS, options={"crf": "16", "preset": "ultrafast"}
        )
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def cvat_xml(video: str, swimmers: list[Swimmer]) -> str:
    """Return the labels of a clip in CVAT for video 1.1: a box per frame, `outside` at the end."""
    labels = "".join(f"<label><name>{escape(name)}</name></label>" for name in ANIMALS)
    lines = [
        '<?xml version="1.0" encoding="utf-8"?>',
        "<annotations>",
        "  <version>1.1</version>",
        "  <meta><task>",
        f"    <name>{escape(video)}</name><size>{NUM_FRAMES}</size><mode>interpolation</mode>",
        f"    <start_frame>0</start_frame><stop_frame>{NUM_FRAMES - 1}</stop_frame>",
        f"    <labels>{labels}</labels>",
        f"    <original_size><width>{WIDTH}</width><height>{HEIGHT}</height></original_size>",
        f"    <source>{escape(video)}</source>",
        "  </task></meta>",
    ]
    for number, swimmer in enumerate(swimmers):
        lines.append(f'  <track id="{number}" label="{escape(swimmer.name)}" source="manual">')
        for frame in range(swimmer.first_frame, swimmer.last_frame + 1):
            lines.append(_box_line(swimmer, frame, outside=False))
        if swimmer.last_frame + 1 < NUM_FRAMES:
            lines.append(_box_line(swimmer, swimmer.last_frame + 1, outside=True))
        lines.append("  </track>")
    return "\n".join([*lines, "</annotations>", ""])


def _box_line(swimmer: Swimmer, frame: int, *, outside: bool) -> str:
    seen = swimmer.last_frame if outside else frame
    left, top, right, bottom = swimmer.box(seen)
    keyframe = int(outside or frame in (swimmer.first_frame, swimmer.last_frame))
    return (
        f'    <box frame="{frame}" keyframe="{keyframe}" outside="{int(outside)}" occluded="0" '
        f'xtl="{left:.2f}" ytl="{top:.2f}" xbr="{right:.2f}" ybr="{bottom:.2f}" z_order="0"></box>'
    )
