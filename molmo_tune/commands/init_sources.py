"""Label files in a folder → data sources of a recipe, with a validation split.

Labels are read for real, once per candidate media folder until one fits, so the recipe that
`molmo-tune init` writes names a media folder that works. Splits that the folder already has are
kept; otherwise whole media files are held out.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from pathlib import Path

from molmo_tune.errors import UserError
from molmo_tune.labels.read import read_labels
from molmo_tune.labels.report import ConversionReport
from molmo_tune.labels.sample import Sample
from molmo_tune.labels.survey import Place, media_folders, survey
from molmo_tune.labels.tracks import unique

VAL_FRACTION = 0.1
"""Fraction of the media that is held out if the folder has no splits of its own."""

_SPLIT_SEED = 7
_LABEL_FOLDERS = {"annotations", "labels", "masks", "gt", "instances"}


@dataclass(frozen=True, slots=True)
class Source:
    """Labels that were read, with the media folder that fits them best."""

    format: str
    path: Path
    media: Path | None
    samples: list[Sample]
    report: ConversionReport


@dataclass(frozen=True, slots=True)
class Splits:
    """Sources to train and validate on; ``files`` are still to be written, as our JSONL."""

    train: list[Source]
    val: list[Source]
    files: dict[Path, list[Sample]]


def read_sources(folder: Path, label_format: str | None) -> dict[Place, Source]:
    """Find the labels in a folder and read them, except for a test split.

    Args:
        folder: folder with labels and media.
        label_format: name of the format; detected when None.

    Raises:
        UserError: no labels, labels of several formats, or labels that cannot be read.
    """
    name, places = survey(folder, label_format)
    anywhere = media_folders(folder)
    sources = {
        place: _read(name, place.path, folder, anywhere)
        for place in places
        if place.split != "test"
    }
    if not sources:
        raise UserError(folder, "only labels of a test split", "labels to train on")
    return sources


def split_sources(sources: dict[Place, Source], to: Path) -> Splits:
    """Use the folder's own splits, or hold out media and plan two files in `to`."""
    val = [source for place, source in sources.items() if place.split == "val"]
    train = [source for place, source in sources.items() if place.split != "val"]
    if val and train:
        return Splits(train, val, {})
    taken: dict[str, int] = {}
    samples = [
        replace(sample, id=unique(sample.id, taken))
        for source in sources.values()
        for sample in source.samples
    ]
    kept, held_out = hold_out(samples)
    if not held_out:
        return Splits([*train, *val], [], {})
    files = {to / "train.jsonl": kept, to / "val.jsonl": held_out}
    report = next(iter(sources.values())).report
    made = [Source("jsonl", path, None, split, report) for path, split in files.items()]
    return Splits(made[:1], made[1:], files)


def hold_out(samples: list[Sample]) -> tuple[list[Sample], list[Sample]]:
    """Split by media file, so that all questions about one clip end up on one side.

    Samples with several images stay together if they share one; each text sample is its own group.
    The second list is empty if there is only one group.
    """
    groups = _groups(samples)
    names = sorted(set(groups))
    if len(names) < 2:
        return samples, []
    num_held_out = max(1, round(VAL_FRACTION * len(names)))
    chosen = set(random.Random(_SPLIT_SEED).sample(names, num_held_out))
    sides: tuple[list[Sample], list[Sample]] = ([], [])
    for sample, group in zip(samples, groups, strict=True):
        sides[group in chosen].append(sample)
    return sides


def _read(name: str, path: Path, top: Path, anywhere: list[Path]) -> Source:
    """Read with the nearest media folder that drops the fewest annotations."""
    best: Source | None = None
    failure: UserError | None = None
    for media in _media_candidates(path, top, anywhere):
        try:
            samples, report = read_labels(name, path, media)
        except UserError as error:
            failure = error
            continue
        if best is None or report.num_dropped < best.report.num_dropped:
            best = Source(name, path, media, samples, report)
        if not any("missing" in reason.reason for reason in report.dropped):
            break
    if best is None:
        assert failure is not None
        raise failure
    return best


def _media_candidates(path: Path, top: Path, anywhere: list[Path]) -> list[Path | None]:
    """The reader's own default, customary folders, parent folders, then any folder with media."""
    start = path if path.is_dir() else path.parent
    parents = [one for one in (start, *start.parents) if one.is_relative_to(top)]
    customary = [
        Path(*(("images" if part == "labels" else part) for part in start.parts)),
        top / "images" / start.name,
        start.parent / "images",
    ]
    exist = [one for one in customary if one.is_dir() and one != start]
    elsewhere = [one for one in anywhere if not _is_label_folder(one, start, top)]
    return [None, *dict.fromkeys([*exist, *parents, *elsewhere])]


def _is_label_folder(folder: Path, start: Path, top: Path) -> bool:
    """Whether images in this folder are masks, not media."""
    if start != top and folder.is_relative_to(start):
        return True
    return any(part.lower() in _LABEL_FOLDERS for part in folder.relative_to(top).parts)


def _groups(samples: list[Sample]) -> list[str]:
    """The group of each sample: samples that share media, directly or through others."""
    leader: dict[str, str] = {}

    def find(name: str) -> str:
        while leader.setdefault(name, name) != name:
            leader[name] = name = leader[leader[name]]
        return name

    first = []
    for sample in samples:
        media = [str(path) for path in sample.media.paths] or [f"text {sample.id}"]
        first.append(media[0])
        for other in media[1:]:
            leader[find(other)] = find(media[0])
    return [find(name) for name in first]
