"""Is anything that is scored also trained on: same files, same bytes, nearly the same pictures.

The commonest leak is a film cut into frames that were then shared out at random. So pictures of
both parts are compared by hashes that survive resizing and re-encoding (`media.likeness`): images
as they are, of a video three frames. Decoding takes time, so of large data sets some hundreds are
compared unless all are asked for, and the finding says so.

What it does not do: decide. Fixed cameras make similar pictures without a leak; alike is a warning,
only the same file or content is an error.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from molmo_tune.checks.finding import Finding, examples
from molmo_tune.encoding.sources import SourceData
from molmo_tune.errors import UserError
from molmo_tune.labels.sample import Media
from molmo_tune.media.image import read_image
from molmo_tune.media.perceptual_hash import NUM_BITS, Hashes, hash_of, nearest
from molmo_tune.media.video import probe_video, read_frames

ALIKE_BITS = 10
"""Pictures that differ in no more bits than this are nearly the same."""

COMPARED = 300
"""Media of each part that are compared when not all are."""

_FRAMES = 3  # of a video
_Medium = tuple[str, Path]  # kind, path


def about_leaks(
    train: Sequence[SourceData], val: Sequence[SourceData], *, all_pictures: bool = False
) -> Iterator[Finding]:
    """Findings about media that both parts share."""
    trained, held_out = _media(train), _media(val)
    same = [path for path in held_out if path in trained]
    if same:
        yield _meaningless(len(same), "media", [str(path) for path in same])
    others = {path: kind for path, kind in held_out.items() if path not in trained}
    copies = _same_bytes(trained, others)
    if copies:
        named = [f"{path} is {other}" for path, other in copies.items()]
        yield _meaningless(len(copies), "copies of media", named)
    rest = {path: kind for path, kind in others.items() if path not in copies}
    yield from _alike(trained, rest, all_pictures)


def _meaningless(number: int, what: str, named: Sequence[str]) -> Finding:
    text = f"{number} {what} are also trained on, scores would mean nothing: {examples(named)}"
    return Finding("error", "data.val", text, number)


def _media(part: Sequence[SourceData]) -> dict[Path, str]:
    """Kinds of all media that open, by their full paths."""
    used: list[Media] = [item.sample.media for data in part for item in data.plan.items]
    return {path.resolve(): media.kind for media in used for path in media.paths}


def _same_bytes(trained: dict[Path, str], held_out: dict[Path, str]) -> dict[Path, Path]:
    """Held-out files whose content is that of a trained one; only equal sizes are read."""
    by_size: dict[int, list[Path]] = {}
    for path in trained:
        if path.is_file():
            by_size.setdefault(path.stat().st_size, []).append(path)
    digests: dict[Path, bytes] = {}

    def digest(path: Path) -> bytes:
        if path not in digests:
            with path.open("rb") as file:
                digests[path] = hashlib.file_digest(file, "sha256").digest()
        return digests[path]

    found = {}
    for path in held_out:
        likely = by_size.get(path.stat().st_size, []) if path.is_file() else []
        twin = next((other for other in likely if digest(other) == digest(path)), None)
        if twin is not None:
            found[path] = twin
    return found


def _alike(
    trained: dict[Path, str], held_out: dict[Path, str], all_pictures: bool
) -> Iterator[Finding]:
    ours, theirs = (_hashes(_some(part, all_pictures)) for part in (held_out, trained))
    if not ours[0] or not theirs[0]:
        return
    places, bits = nearest(np.stack(ours[1]), np.stack(theirs[1]))
    found: dict[Path, str] = {}
    for path, place, differ in zip(ours[0], places, bits, strict=True):
        if differ <= ALIKE_BITS:
            found.setdefault(path, f"{path} and {theirs[0][place]} ({differ} of {NUM_BITS} bits)")
    looked = "" if all_pictures else _looked_at(trained, held_out)
    if found:
        text = f"{len(found)} media look almost like ones trained on{looked}"
        yield Finding(
            "warning", "data.val", f"{text}: {examples(list(found.values()))}", len(found)
        )
    elif looked:
        yield Finding("note", "data.val", f"no picture looks like one trained on{looked}")


def _looked_at(*parts: dict[Path, str]) -> str:
    if all(len(part) <= COMPARED for part in parts):
        return ""
    return f" (at most {COMPARED} media of each part compared; --media compares all)"


def _some(part: dict[Path, str], all_pictures: bool) -> list[_Medium]:
    """All media, or some that are evenly spread over the part."""
    media = [(kind, path) for path, kind in part.items()]
    if all_pictures or len(media) <= COMPARED:
        return media
    return [media[place * len(media) // COMPARED] for place in range(COMPARED)]


def _hashes(media: Sequence[_Medium]) -> tuple[list[Path], list[Hashes]]:
    """A path for each hash; media that do not decode are `molmo_tune.checks.media`'s matter."""
    paths, hashes = [], []
    for kind, path in media:
        try:
            pictures = _frames(path) if kind == "video" else [read_image(path)]
        except UserError:
            continue
        for found in map(hash_of, pictures):
            if found is not None:
                paths.append(path)
                hashes.append(found)
    return paths, hashes


def _frames(path: Path) -> np.ndarray:
    last = probe_video(path).num_frames - 1
    return read_frames(path, sorted({last * n // (_FRAMES + 1) for n in range(1, _FRAMES + 1)}))
