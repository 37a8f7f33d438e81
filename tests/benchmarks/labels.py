"""How fast label files are read: ``python tests/benchmarks/labels.py > …/results/labels.json``.

Writes COCO files of 60,000 annotations on 6,000 images (boxes; half boxes and half polygons of
twelve corners), MOTChallenge of 100,000 rows, and a CSV table of a million boxes on 20,000 images;
reads the first three (best of five rounds) and converts the table. Prints annotations per second of
CPU time on one core, because shared machines have no steady clock, and the peak memory. Each runs
in its own process. The images are links to one file, and are opened as usual.
"""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from PIL import Image

from molmo_tune.labels.formats.jsonl import write_jsonl
from molmo_tune.labels.formats.table.table import TableLayout
from molmo_tune.labels.read import iterate_labels, read_labels
from molmo_tune.labels.report import Tally
from tests.benchmarks import labels_video

SIZE = (640, 480)
ROUNDS = 5


def main(arguments: list[str]) -> None:
    """Run all, or in a child process the one that is named."""
    if arguments:
        print(json.dumps(KINDS[arguments[0]]()))
        return
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    figures: dict[str, object] = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{os.cpu_count()} cores, load {load}",
    }
    for name in KINDS:
        command = [sys.executable, __file__, name]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        figures[name] = json.loads(done.stdout)
    print(json.dumps(figures, indent=2))


def coco(share_of_polygons: float) -> dict[str, float]:
    """A COCO file of 60,000 annotations."""
    rng = random.Random(7)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        _pictures(folder, 6_000)
        images = [
            {"id": n, "file_name": f"{n}.png", "width": SIZE[0], "height": SIZE[1]}
            for n in range(6_000)
        ]
        rows = [_row(n, rng, share_of_polygons) for n in range(60_000)]
        categories = [{"id": n, "name": f"class {n}"} for n in range(80)]
        data = {"images": images, "annotations": rows, "categories": categories}
        (folder / "x.json").write_text(json.dumps(data))
        del data, rows, images
        return _measured("coco", folder / "x.json", 60_000)


def table() -> dict[str, float]:
    """A CSV of a million boxes."""
    rng = random.Random(7)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        _pictures(folder, 20_000)
        with (folder / "x.csv").open("w") as file:
            file.write("image,label,x,y,w,h\n")
            for number in range(1_000_000):
                x, y, w, h = (rng.randrange(1, 300) for _ in range(4))
                file.write(f"{number // 50}.png,class {number % 80},{x},{y},{w % 200 + 1},{h}\n")
        layout = TableLayout("image", "label", ("x", "y", "w", "h"), "pixel", "xywh")
        return _measured("table", folder / "x.csv", 1_000_000, layout, folder / "out.jsonl")


def _pictures(folder: Path, count: int) -> None:
    Image.new("RGB", SIZE).save(folder / "0.png")
    for number in range(1, count):
        os.link(folder / "0.png", folder / f"{number}.png")


def mot() -> dict[str, float]:
    """Measure MOTChallenge, as `labels_video` does."""
    rows = labels_video.NUM_FRAMES * labels_video.NUM_OBJECTS
    seconds = labels_video.best_s()
    return {
        "annotations": rows,
        "cpu_s": round(seconds, 2),
        "annotations_per_s": round(rows / seconds),
    }


def _row(number: int, rng: random.Random, share_of_polygons: float) -> dict[str, object]:
    x, y = rng.uniform(0, 500), rng.uniform(0, 400)
    box = [round(x, 2), round(y, 2), 80.0, 60.0]
    part = [round(v + rng.uniform(0, 60), 2) for _ in range(12) for v in (x, y)]
    polygons = [part] if number % 2 < 2 * share_of_polygons else []
    return {
        "id": number,
        "image_id": number // 10,
        "category_id": number % 80,
        "bbox": box,
        "segmentation": polygons,
        "iscrowd": 0,
        "area": 4800.0,
    }


def _measured(
    name: str, path: Path, rows: int, layout: TableLayout | None = None, out: Path | None = None
) -> dict[str, float]:
    """Read labels, or with `out` convert them sample by sample, as `molmo-tune convert` does."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    start = time.process_time()
    if out is None:
        times = []
        for _ in range(ROUNDS):
            start = time.process_time()
            samples, report = read_labels(name, path, layout=layout)
            times.append(time.process_time() - start)
            num_images = len(samples)
            del samples
        start = time.process_time() - min(times)
    else:
        tally = Tally()
        num_images = write_jsonl(iterate_labels(name, path, None, layout, tally), out)
        report = tally.report(name, path, num_images)
    seconds = time.process_time() - start
    kept = sum(count.kept for count in report.counts if count.kind != "image")
    assert kept == rows, report.table()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "annotations": kept,
        "images": num_images,
        "cpu_s": round(seconds, 2),
        "annotations_per_s": round(kept / seconds),
        "peak_mb_before": round(before),
        "peak_mb": round(peak),
    }


KINDS: dict[str, Callable[[], dict[str, float]]] = {
    "coco, boxes": lambda: coco(0.0),
    "coco, half of them polygons": lambda: coco(0.5),
    "mot": mot,
    "table": table,
}


if __name__ == "__main__":
    main(sys.argv[1:])
