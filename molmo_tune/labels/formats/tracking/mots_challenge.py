"""MOTSChallenge: masks of tracked cars and pedestrians, with frames counted from 1.

    frame id class height width run_lengths   text: one object in one frame per row
    instances/0002/000017.png                 16-bit image: pixel = class * 1000 + instance

Masks: COCO run lengths in the text, pixels with the object's id in the image.
Frames: count from 1. KITTI MOTS files look the same but count from 0: use `kitti_mots`.
Classes: 1 is car, 2 is pedestrian; in a folder of images, ``labels.txt`` names other classes, one
    per line.
Media: the text file, or the folder of images, is named like its video.
Skipped: id 10000 (class 10), a region to ignore.
Dropped: rows of other than 6 fields, ids that do not match their class, classes without a name.
Exhaustive labels: none.
Source: the annotation format of MOTS, www.vision.rwth-aachen.de/page/mots.
"""

from __future__ import annotations

from functools import partial

from molmo_tune.labels.formats.tracking._mots import looks_like_mots, read_mots
from molmo_tune.labels.reader import Reader

READER = Reader(
    partial(read_mots, first=1),
    looks_like_mots,
    "**/*.[tp][xn][tg]",
    "MOTSChallenge (frames from 1: txt with run lengths, or 16-bit PNG)",
)
