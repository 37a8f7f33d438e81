"""Media of a label file: one file, or a folder with names to look up.

Label files name media as the annotator's machine knew them: a bare file name, a path on that
machine, a URL. A name is looked up among the files below the media folder, first as written, then
by its last part, then ignoring case, then without its extension (a re-encoded clip). A name that
contains ``..`` is refused: files outside the folder are never opened. If two files match equally
well, that is an error, not a choice.

Limitations: downloads nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from molmo_tune.errors import UserError
from molmo_tune.media.frame_folder import has_images
from molmo_tune.media.video import VideoInfo, probe_video

VIDEO_SUFFIXES = (
    *(".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg"),
    *(".ts", ".mts", ".wmv", ".flv", ".ogv", ".3gp", ".gif"),
)

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")

_LEVELS: tuple[Callable[[PurePosixPath], str], ...] = (
    lambda path: path.name,
    lambda path: path.name.casefold(),
    lambda path: _without_extension(path.name).casefold(),
)
_FIX = "check the media path"


class _Index:
    """Lookup tables of file names: a million labels look up a million names."""

    def __init__(self, files: Sequence[str]) -> None:
        self.paths = frozenset(files)
        self._files = files

    @cached_property
    def levels(self) -> list[dict[str, list[PurePosixPath]]]:
        """Looser lookup tables, for names that differ from the actual paths."""
        levels: list[dict[str, list[PurePosixPath]]] = [{} for _ in _LEVELS]
        for path in map(PurePosixPath, self._files):
            for by_name, level in zip(levels, _LEVELS, strict=True):
                by_name.setdefault(level(path), []).append(path)
        return levels


class MissingMediaError(UserError):
    """Media named by a label file that are missing or do not open."""


@dataclass(frozen=True)
class MediaSource:
    """Media of one data source.

    Args:
        path: a media file, or the folder that contains the media (at any depth).
        given: whether the user named it; otherwise it is the folder of the labels.
    """

    path: Path
    given: bool = True

    def open_video(
        self, names: Sequence[str], hints: Sequence[str], where: str
    ) -> tuple[Path, VideoInfo]:
        """Return the path and the frame times of a label file's video.

        Args:
            names: file names in the label file, most reliable first. If no video has such a name, a
                folder of frames matches (or its folder ``img1``, as in MOT).
            hints: possible names of the video (a task's title, the label file's stem). Without
                names, the only video of the folder matches as well.
            where: ``file:line`` for the messages.

        Raises:
            MissingMediaError: there is no such video, or it does not decode.
            UserError: a name points outside the folder, or several videos match.
        """
        path = self.path if self.path.is_file() else self._video_at(names, hints, where)
        try:
            return path, probe_video(path)
        except UserError as error:
            raise MissingMediaError(error.where, error.found, error.expected, error.fix) from error

    def check_single_file(self, num_media: int, where: object) -> None:
        """Check that a single media file is not used for several samples.

        Raises:
            UserError: it is.
        """
        if num_media > 1 and self.path.is_file():
            one = f"media is the single file {self.path}"
            found = f"the labels describe {num_media} media, but {one}"
            raise UserError(where, found, "a media folder")

    def find(self, name: str, where: str) -> Path:
        """Return the file of that name.

        Raises:
            MissingMediaError: it does not exist.
            UserError: the name points outside the folder, or several files match.
        """
        if self._is_one_file:
            return self.path
        found = _match(self._index, name, where)
        if found is None:
            raise MissingMediaError(where, f"no file {name!r} in {self.path}", fix=_FIX)
        return self.path / found

    def find_video(self, name: str, where: str) -> Path:
        """Return the video file, or the folder of frames, of that name.

        Raises:
            MissingMediaError: neither exists.
            UserError: the name points outside the folder, or several files match.
        """
        try:
            return self.find(name, where)
        except MissingMediaError:
            folder = self._frame_folder((name,), where)
            if folder is None:
                raise
            return folder

    def images(self) -> list[Path]:
        """Return the image files of the folder, by extension; none if media is a single file."""
        if self.path.is_file():
            return []
        return [self.path / name for name in self._files if name.lower().endswith(IMAGE_SUFFIXES)]

    def _video_at(self, names: Sequence[str], hints: Sequence[str], where: str) -> Path:
        try:
            return self._look_up(names, hints, where)
        except MissingMediaError:
            folder = self._frame_folder((*names, *hints), where)
            if folder is None:
                raise
            return folder

    def _frame_folder(self, names: Iterable[str], where: str) -> Path | None:
        """Return a folder of frames with one of these names, below and other than the root."""
        root = self.path.resolve()
        for name in names:
            wanted = _inside(name, where)
            shorter = ("/".join(wanted.parts[start:]) for start in range(len(wanted.parts)))
            for path in (self.path / part / more for part in shorter for more in ("", "img1")):
                if path == self.path or str(path) == where or not has_images(path):
                    continue
                if path.resolve().is_relative_to(root):
                    return path
        return None

    def _look_up(self, names: Sequence[str], hints: Sequence[str], where: str) -> Path:
        for name in (*names, *hints):
            found = _match(self._video_index, name, where)
            if found is not None:
                return self.path / found
        if names:
            raise MissingMediaError(where, f"no video {names[0]!r} in {self.path}", fix=_FIX)
        if len(self._videos) == 1:
            return self.path / self._videos[0]
        found_here = f"the labels do not name their video, and {self.path} has {len(self._videos)}"
        raise MissingMediaError(where, found_here, "one video", "give the video file as media")

    @cached_property
    def _is_one_file(self) -> bool:
        return self.path.is_file()

    @cached_property
    def _files(self) -> tuple[str, ...]:
        if not self.path.is_dir():
            raise UserError(self.path, "no such file or folder", "the media of the labels", _FIX)
        return tuple(sorted(_walk(self.path), key=lambda path: path.split("/")))

    @cached_property
    def _index(self) -> _Index:
        return _Index(self._files)

    @cached_property
    def _video_index(self) -> _Index:
        return _Index(self._videos)

    @cached_property
    def _videos(self) -> tuple[str, ...]:
        return tuple(path for path in self._files if path.lower().endswith(VIDEO_SUFFIXES))


def _without_extension(name: str) -> str:
    """Return a name without its video extension; other dots belong to the name."""
    stem, dot, extension = name.rpartition(".")
    return stem if dot and f".{extension.lower()}" in VIDEO_SUFFIXES else name


def _walk(folder: Path) -> Iterable[str]:
    """Yield the relative paths of all files that are not hidden."""
    for here, subfolders, files in os.walk(folder):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        inside = Path(here).relative_to(folder).as_posix()
        prefix = "" if inside == "." else f"{inside}/"
        yield from (prefix + name for name in files if not name.startswith("."))


def _nearest(fits: list[PurePosixPath], wanted: PurePosixPath) -> list[PurePosixPath]:
    """Narrow files of one name to those in the folders that the wanted path ends with."""
    for start in range(len(wanted.parts) - 1 if len(fits) > 1 else 0):
        tail = wanted.parts[start:]
        inside = [path for path in fits if path.parts[-len(tail) :] == tail]
        if inside:
            return inside
    return fits


def _inside(name: str, where: str) -> PurePosixPath:
    wanted = PurePosixPath(name.replace("\\", "/").strip().lstrip("/"))
    if ".." in wanted.parts:
        raise UserError(where, f"{name!r} points outside the media folder", "a file inside it")
    return wanted


def _match(files: _Index, name: str, where: str) -> str | None:
    if name in files.paths:
        return name
    wanted = _inside(name, where)
    if not wanted.name:
        return None
    for start in range(len(wanted.parts)):  # the label file may know more or fewer parents
        inside = "/".join(wanted.parts[start:])
        if inside in files.paths:
            return inside
    for by_name, level in zip(files.levels, _LEVELS, strict=True):
        fits = _nearest(by_name.get(level(wanted), []), wanted)
        if len(fits) > 1:
            listed = " and ".join(str(path) for path in fits[:2])
            raise UserError(where, f"{name!r} matches several files: {listed}", "one", "rename one")
        if fits:
            return str(fits[0])
    return None
