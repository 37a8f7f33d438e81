"""Leaks between training and validation: same files, same bytes, near-duplicates.

The most common leak is a video split into frames that were then distributed at random. So images
and three frames of each video are compared by hashes that survive resizing and re-encoding
(`media.perceptual_hash`). Decoding takes time, so by default a few hundred media per split are
compared, and the finding says so.

Limitations: fixed cameras give near-duplicates without a leak, so these are a warning; only the
same file or content is an error.
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
from molmo_tune.units import count

DUPLICATE_BITS = 10
"""Hashes of near-duplicates differ in at most this many bits."""

COMPARED = 300
"""Maximum number of media per split to compare by default."""

_FRAMES = 3  # of a video
_MediaFile = tuple[str, Path]  # kind, path


def check_leaks(
    train: Sequence[SourceData], val: Sequence[SourceData], *, all_media: bool = False
) -> Iterator[Finding]:
    """Yield findings about media in both splits; `all_media` compares more than `COMPARED`."""
    trained, held_out = _media(train), _media(val)
    same = [path for path in held_out if path in trained]
    if same:
        yield _leak(count(len(same), "media file"), [str(path) for path in same], len(same))
    others = {path: kind for path, kind in held_out.items() if path not in trained}
    copies = _same_bytes(trained, others)
    if copies:
        pairs = [f"{path} is {other}" for path, other in copies.items()]
        yield _leak(count(len(copies), "copy of media", "copies of media"), pairs, len(copies))
    rest = {path: kind for path, kind in others.items() if path not in copies}
    yield from _near_duplicates(trained, rest, all_media)


def _leak(what: str, cases: Sequence[str], number: int) -> Finding:
    text = f"{what} also in data.train, so scores are invalid: {examples(cases)}"
    return Finding("error", "data.val", text, number)


def _media(split: Sequence[SourceData]) -> dict[Path, str]:
    """Return the kinds of all readable media of a split, by absolute path."""
    used: list[Media] = [item.sample.media for data in split for item in data.plan.items]
    return {path.resolve(): media.kind for media in used for path in media.paths}


def _same_bytes(trained: dict[Path, str], held_out: dict[Path, str]) -> dict[Path, Path]:
    """Return held-out files with the content of a trained one; only equal sizes are read."""
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
        candidates = by_size.get(path.stat().st_size, []) if path.is_file() else []
        copy = next((other for other in candidates if digest(other) == digest(path)), None)
        if copy is not None:
            found[path] = copy
    return found


def _near_duplicates(
    trained: dict[Path, str], held_out: dict[Path, str], all_media: bool
) -> Iterator[Finding]:
    ours, theirs = (_hashes(_selected(split, all_media)) for split in (held_out, trained))
    if not ours[0] or not theirs[0]:
        return
    indices, bits = nearest(np.stack(ours[1]), np.stack(theirs[1]))
    found: dict[Path, str] = {}
    for path, index, num_bits in zip(ours[0], indices, bits, strict=True):
        if num_bits <= DUPLICATE_BITS:
            found.setdefault(path, f"{path} and {theirs[0][index]} ({num_bits} of {NUM_BITS} bits)")
    scope = "" if all_media else _scope(trained, held_out)
    if found:
        number = count(len(found), "near-duplicate")
        text = f"{number} of media in data.train{scope}: {examples(list(found.values()))}"
        yield Finding("warning", "data.val", text, len(found))
    elif scope:
        yield Finding("note", "data.val", f"no near-duplicates found{scope}")


def _scope(*splits: dict[Path, str]) -> str:
    if all(len(split) <= COMPARED for split in splits):
        return ""
    return f" (compared at most {COMPARED} media per split; --media compares all)"


def _selected(split: dict[Path, str], all_media: bool) -> list[_MediaFile]:
    """Return all media of a split, or `COMPARED` of them at equal intervals."""
    media = [(kind, path) for path, kind in split.items()]
    if all_media or len(media) <= COMPARED:
        return media
    return [media[index * len(media) // COMPARED] for index in range(COMPARED)]


def _hashes(media: Sequence[_MediaFile]) -> tuple[list[Path], list[Hashes]]:
    """Return hashes, and the path of each; `molmo_tune.checks.media` reports unreadable media."""
    paths, hashes = [], []
    for kind, path in media:
        try:
            images = _frames(path) if kind == "video" else [read_image(path)]
        except UserError:
            continue
        for found in map(hash_of, images):
            if found is not None:
                paths.append(path)
                hashes.append(found)
    return paths, hashes


def _frames(path: Path) -> np.ndarray:
    last = probe_video(path).num_frames - 1
    return read_frames(path, sorted({last * n // (_FRAMES + 1) for n in range(1, _FRAMES + 1)}))
