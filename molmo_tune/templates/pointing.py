"""Questions answered with points, a number, or both, on images and videos.

In a video, the answer points at an object in the first sampled frame that shows it. With several
images, half of the questions of templates with ``{{ images }}`` name only some of the images, among
them one that shows the label. Answers omit images without the label; numbers stay.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from molmo_tune.grounding.text import (
    format_image_points,
    format_multi_image_points,
    format_video_points,
)
from molmo_tune.grounding.times import written_time
from molmo_tune.labels.geometry.points import shape_point
from molmo_tune.labels.sample import Instance, Track
from molmo_tune.templates.conversations import Conversation, Questions, Skipped, Subject
from molmo_tune.templates.exhaustive import absent_labels, count_problem
from molmo_tune.templates.visible import VisibleTrack, shown_and_hidden
from molmo_tune.templates.wording import draw, mentioning, variables_of

XY = tuple[float, float]
ALL_IMAGES = "all images"


def video_pointing(subject: Subject) -> Questions:
    """Return one conversation per label of a video, where possible."""
    conversations: list[Conversation] = []
    skipped: list[Skipped] = []
    for label in subject.sample.labels(Track):
        shown, hidden = tracks_shown(subject, label)
        problem = _problem(subject, label, len(shown), len(hidden), "no sampled frame shows it")
        if problem is not None:
            skipped.append(Skipped(label, problem))
            continue
        skipped += [never_shown(track) for track in hidden]
        conversations.append(_about_video(subject, label, shown))
    conversations += [_about_video(subject, label, []) for label in absent_labels(subject)]
    return conversations, skipped


def image_pointing(subject: Subject) -> Questions:
    """Return one conversation per label of one or several images, where possible."""
    conversations: list[Conversation] = []
    skipped: list[Skipped] = []
    for label in subject.sample.labels(Instance):
        points, outside = _image_points(subject, label)
        numbers = _draw_images(subject, label, points)
        num_shown = sum(len(points[number - 1]) for number in numbers)
        problem = _problem(subject, label, num_shown, len(outside), _unseen(subject, "it"))
        if problem is not None:
            skipped.append(Skipped(label, problem))
            continue
        skipped += outside
        conversations.append(_about_images(subject, label, points, numbers))
    nothing: list[list[XY]] = [[] for _ in subject.sizes_wh]
    everywhere = tuple(range(1, len(nothing) + 1))
    for label in absent_labels(subject):
        conversations.append(_about_images(subject, label, nothing, everywhere))
    return conversations, skipped


def tracks_shown(subject: Subject, label: str) -> tuple[list[VisibleTrack], list[Track]]:
    """Return the objects of a label whose point some sampled frame shows, and the others."""
    rule = subject.template.point
    return shown_and_hidden(subject.sample, label, subject.clip, rule, subject.seed)


def first_sightings(tracks: Sequence[VisibleTrack]) -> list[tuple[float, list[XY]]]:
    """Return each object at the first time that shows it: ``(time_s, points)`` in time order."""
    by_time: dict[float, list[XY]] = {}
    for track in tracks:
        first = track.sightings[0]
        by_time.setdefault(written_time(first.time_s), []).append(first.xy_px)
    return sorted(by_time.items())


def never_shown(track: Track) -> Skipped:
    """Report an object that no sampled frame shows, although others of its label are shown."""
    return Skipped(f"{track.label}, object {track.id}", "no sampled frame shows this object")


def _problem(
    subject: Subject, label: str, num_shown: int, num_hidden: int, unseen: str
) -> str | None:
    """Return why a label has no question; ``unseen`` if there is nothing to point at."""
    if not num_shown:
        return unseen
    if num_shown > subject.template.point_limit:
        return f"its answer exceeds max_points = {subject.template.max_points}"
    return count_problem(subject, label, num_hidden=num_hidden)


def _about_video(subject: Subject, label: str, tracks: Sequence[VisibleTrack]) -> Conversation:
    template, sample_id = subject.template, subject.sample.id
    question = subject.fill(draw(template.questions, subject.key(label)), label=label)
    answer = format_video_points(
        first_sightings(tracks),
        size_wh=subject.clip.size_wh,
        label=subject.name(label),
        mode=template.mode,
    )
    return Conversation(sample_id, label, question, answer)


def _image_points(subject: Subject, label: str) -> tuple[list[list[XY]], list[Skipped]]:
    """Return the points of a label on each image, and its objects outside of their image."""
    points: list[list[XY]] = [[] for _ in subject.sizes_wh]
    outside: list[Skipped] = []
    for note in subject.sample.annotations:
        if isinstance(note, Instance) and note.label == label:
            size, template = subject.sizes_wh[note.image_index], subject.template
            xy = shape_point(note.shape, size, template.point, subject.key(note.id))
            if xy is None:
                named = f"{label}, object {note.id}"
                outside.append(Skipped(named, _unseen(subject, "this object")))
            else:
                points[note.image_index].append(xy)
    return points, outside


def _unseen(subject: Subject, what: str) -> str:
    rule = subject.template.point
    outside = f"{what} is outside the image"
    return f"{what} has no visible {rule}" if rule.startswith("keypoint:") else outside


def _draw_images(subject: Subject, label: str, points: Sequence[list[XY]]) -> tuple[int, ...]:
    """Return the numbers of the images in question: all, or some that include the label."""
    everywhere = tuple(range(1, len(points) + 1))
    shown = [number for number in everywhere if points[number - 1]]
    rng = random.Random(subject.key(label, "image numbers"))
    can_name = any("images" in variables_of(wording) for wording in subject.template.questions)
    if len(points) == 1 or not shown or not can_name or rng.random() < 0.5:
        return everywhere
    first = rng.choice(shown)
    others = [number for number in everywhere if number != first]
    return tuple(sorted([first, *rng.sample(others, rng.randint(0, len(others) - 1))]))


def _about_images(
    subject: Subject, label: str, points: Sequence[list[XY]], numbers: tuple[int, ...]
) -> Conversation:
    template, sizes, name = subject.template, subject.sizes_wh, subject.name(label)
    is_subset = len(numbers) < len(sizes)
    images = ", ".join(f"image_{number}" for number in numbers) if is_subset else ALL_IMAGES
    wording = draw(_image_phrasings(subject, label, is_subset), subject.key(label))
    question = subject.fill(wording, label=label, images=images)
    if len(sizes) == 1:
        answer = format_image_points(points[0], size_wh=sizes[0], label=name, mode=template.mode)
    else:
        answered = [(n, sizes[n - 1], points[n - 1]) for n in numbers if points[n - 1]]
        answer = format_multi_image_points(answered, label=name, mode=template.mode)
    return Conversation(subject.sample.id, label, question, answer, image_numbers=numbers)


def _image_phrasings(subject: Subject, label: str, is_subset: bool) -> Sequence[str]:
    """Return the phrasings that name images, or those that do not; one image is not named."""
    wordings = subject.template.questions
    if len(subject.sizes_wh) == 1:
        return [w for w in wordings if "images" not in variables_of(w)] or wordings
    return mentioning(wordings, "images", subject.key(label), needed=is_subset)
