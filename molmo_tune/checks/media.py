"""Decoding of all media of a recipe as in training, to report every error before the first step.

Every check reads file headers, which is fast. Decoding takes as long as an epoch without a model,
so it is optional; with a frame cache, training reuses its result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from molmo_tune.checks.finding import Finding
from molmo_tune.encoding.items import Item
from molmo_tune.encoding.media_inputs import vision_of
from molmo_tune.encoding.sources import limits_of, read_items
from molmo_tune.errors import UserError
from molmo_tune.media.image import image_oddities
from molmo_tune.model.loading import load_processor
from molmo_tune.recipe.sections import Recipe
from molmo_tune.units import count

LISTED = 5  # images per oddity


def check_media(
    recipe: Recipe, on_progress: Callable[[int, int], None] = lambda _done, _all: None
) -> Iterator[Finding]:
    """Yield findings about media that do not decode, and about unusual images.

    Args:
        recipe: with the training and validation media.
        on_progress: called with the number of decoded media and of all media of the split.
    """
    processor, limits = load_processor(recipe.model.name), limits_of(recipe)
    for split, sources in (("train", recipe.data.train), ("val", recipe.data.val)):
        items, refused = read_items(sources, recipe, processor) if sources else ([], [])
        by_paths = {item.sample.media.paths: item for item in items if item.sample.media.paths}
        distinct = list(by_paths.values())
        bad: dict[object, str] = {one.bad_medium: one.reason for one in refused if one.bad_medium}
        num_media = len(distinct) + len(bad)
        for number, item in enumerate(distinct, start=1):
            try:
                vision_of(item, processor, limits)
            except UserError as error:
                bad[item.sample.media.paths] = str(error)
            on_progress(number, len(distinct))
        too_many = split == "train" and len(bad) > recipe.data.max_unreadable_media * num_media
        for reason in bad.values():
            yield Finding("error" if too_many else "warning", f"data.{split}", reason)
        total = count(num_media, "media file")
        yield Finding("note", f"data.{split}", f"{num_media - len(bad)} of {total} decoded")
        good = [item for item in distinct if item.sample.media.paths not in bad]
        yield from _about_images(f"data.{split}", good)


def _about_images(where: str, items: Iterable[Item]) -> Iterator[Finding]:
    by_oddity: dict[str, list[str]] = {}
    for item in items:
        if item.sample.media.kind == "image":
            for path in item.sample.media.paths:
                for oddity in image_oddities(path):
                    by_oddity.setdefault(oddity, []).append(str(path))
    for oddity, paths in by_oddity.items():
        listed = ", ".join(paths[:LISTED])
        yield Finding("warning", where, f"{count(len(paths), 'image')}: each {oddity}: {listed}")
