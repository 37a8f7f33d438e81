"""Where the media of a label file are: one file, or a folder with names to look up.

Label files name their media as the annotator's machine knew it: a bare file name, a path of another
computer, an address. A name is looked up among the files that are really below the media folder,
first as written, then by its last part, then without regard to case, then without its ending (a
re-encoded clip). A name with ``..`` in it is refused: files outside the folder are never opened.
Two files that fit equally well are an error, not a choice.

What it does not do: download anything.
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
    lambda path: _without_ending(path.name).casefold(),
)
_FIX = "check the media folder of the recipe"


class _Index:
    """Files by what they may be called; a folder of a million is asked a million times."""

    def __init__(self, files: Sequence[str]) -> None:
        self.paths = frozenset(files)
        self._files = files

    @cached_property
    def levels(self) -> list[dict[str, list[PurePosixPath]]]:
        """By parts of their names, for names that are not written as the files lie."""
        levels: list[dict[str, list[PurePosixPath]]] = [{} for _ in _LEVELS]
        for path in map(PurePosixPath, self._files):
            for by_name, level in zip(levels, _LEVELS, strict=True):
                by_name.setdefault(level(path), []).append(path)
        return levels


class MissingMediaError(UserError):
    """A label file names a medium that is not there or does not open."""


@dataclass(frozen=True)
class MediaSource:
    """The media of one data source.

    Args:
        path: a media file, or the folder that holds the media (at any depth).
        given: the user named it; otherwise it is the folder of the labels.
    """

    path: Path
    given: bool = True

    def open_video(
        self, names: Sequence[str], hints: Sequence[str], where: str
    ) -> tuple[Path, VideoInfo]:
        """The video that a label file is about, and its frames' times.

        Args:
            names: file names that the label file gives, most reliable first. Where no video is
                called so, a folder of pictures may be (or its folder ``img1``, as in MOT).
            hints: words that may be the video's name (a task's title, the label file's stem). Only
                if there are no names, the one video of the folder is taken as well.
            where: ``file:line`` for the messages.

        Raises:
            MissingMediaError: there is no such video, or it does not decode.
            UserError: a name climbs out of the folder, or several videos fit.
        """
        path = self.path if self.path.is_file() else self._video_at(names, hints, where)
        try:
            return path, probe_video(path)
        except UserError as error:
            raise MissingMediaError(error.where, error.found, error.expected, error.fix) from error

    def check_number(self, num_media: int, where: object) -> None:
        """A single file cannot be the medium of several samples.

        Raises:
            UserError: it would have to be.
        """
        if num_media > 1 and self.path.is_file():
            one = f"media is the single file {self.path}"
            found = f"the labels are about {num_media} media, but {one}"
            raise UserError(where, found, "the folder of their media")

    def find(self, name: str, where: str) -> Path:
        """The file of that name.

        Raises:
            MissingMediaError: there is none.
            UserError: the name climbs out of the folder, or several files fit.
        """
        if self._is_one_file:
            return self.path
        found = _match(self._index, name, where)
        if found is None:
            raise MissingMediaError(where, f"no file {name!r} in {self.path}", fix=_FIX)
        return self.path / found

    def find_video(self, name: str, where: str) -> Path:
        """The same, or a folder of pictures of that name.

        Raises:
            MissingMediaError: there is neither.
            UserError: the name climbs out of the folder, or several files fit.
        """
        try:
            return self.find(name, where)
        except MissingMediaError:
            folder = self._frame_folder((name,), where)
            if folder is None:
                raise
            return folder

    def images(self) -> list[Path]:
        """All image files of the folder, by their endings; a single file is no folder."""
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
        """A folder of pictures of one of these names, inside and not that of the labels."""
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


def _without_ending(name: str) -> str:
    """Without the ending of a video; other dots belong to the name."""
    stem, dot, ending = name.rpartition(".")
    return stem if dot and f".{ending.lower()}" in VIDEO_SUFFIXES else name


def _walk(folder: Path) -> Iterable[str]:
    """Paths of all files relative to the folder; hidden files and folders are passed over."""
    for here, subfolders, files in os.walk(folder):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        inside = Path(here).relative_to(folder).as_posix()
        before = "" if inside == "." else f"{inside}/"
        yield from (before + name for name in files if not name.startswith("."))


def _nearest(fits: list[PurePosixPath], wanted: PurePosixPath) -> list[PurePosixPath]:
    """Of several files of one name those that lie in the folders the name begins with."""
    for start in range(len(wanted.parts) - 1 if len(fits) > 1 else 0):
        tail = wanted.parts[start:]
        inside = [path for path in fits if path.parts[-len(tail) :] == tail]
        if inside:
            return inside
    return fits


def _inside(name: str, where: str) -> PurePosixPath:
    wanted = PurePosixPath(name.replace("\\", "/").strip().lstrip("/"))
    if ".." in wanted.parts:
        raise UserError(where, f"the name {name!r} climbs out of the media folder", "a file in it")
    return wanted


def _match(files: _Index, name: str, where: str) -> str | None:
    if name in files.paths:
        return name
    wanted = _inside(name, where)
    if not wanted.name:
        return None
    for start in range(len(wanted.parts)):  # the folder may be known by more or fewer parents
        inside = "/".join(wanted.parts[start:])
        if inside in files.paths:
            return inside
    for by_name, level in zip(files.levels, _LEVELS, strict=True):
        fits = _nearest(by_name.get(level(wanted), []), wanted)
        if len(fits) > 1:
            listed = " and ".join(str(path) for path in fits[:2])
            raise UserError(where, f"{name!r} fits several files: {listed}", "one", "rename one")
        if fits:
            return str(fits[0])
    return None
