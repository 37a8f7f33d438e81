"""The demo's report: scores, loss curve, and frames with the answers before and after."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from molmo_tune.encoding.items import Item
from molmo_tune.evaluation.evaluate import Evaluation, Record
from molmo_tune.export.export import ExportResult
from molmo_tune.grounding.text import parse_points
from molmo_tune.labels.geometry.shapes import clip_box
from molmo_tune.labels.sample import Box
from molmo_tune.media.clip import read_video
from molmo_tune.pages.drawing import Mark, Outline, draw_image
from molmo_tune.pages.page import write_page
from molmo_tune.templates.visible import visible_tracks
from molmo_tune.training.run_report import TrainingResult

MAX_CARDS = 24
GREEN, RED, LABEL = "#39d353", "#ff5548", "#ffffff"
_SLACK_S = 0.06


def write_demo_page(
    out: Path,
    items: Sequence[Item],
    before: Evaluation,
    after: Evaluation,
    trained: TrainingResult,
    exported: ExportResult,
    timings: Sequence[tuple[str, float]],
) -> None:
    """Write the page.

    Raises:
        UserError: it cannot be written.
    """
    by_id = {item.sample.id: item for item in items}
    pairs = list(zip(before.records, after.records, strict=True))[:MAX_CARDS]
    losses = [loss for _, loss in trained.losses]
    one, two = before.summary(), after.summary()
    tensors, verified = exported.tensors, exported.verification
    write_page(
        "demo.html.j2",
        out,
        title="molmo-tune demo: animals in a pond",
        lead="A tiny Molmo 2 that has only seen colored shapes is fine-tuned on labeled clips of a "
        "pond, then asked about clips that it has not seen.",
        rows=[
            ("F1", _interval(one), _interval(two)),
            ("precision", f"{one['precision']:.3f}", f"{two['precision']:.3f}"),
            ("recall", f"{one['recall']:.3f}", f"{two['recall']:.3f}"),
            ("held-out questions", one["questions"], two["questions"]),
        ],
        curve=curve_points(losses),
        loss_low=min(losses),
        loss_high=max(losses),
        num_steps=trained.steps,
        cards=[_card(by_id[b.sample_id], b, a) for b, a in pairs],
        export_rows=[
            ("tensors merged", len(tensors.merged)),
            ("tensors unchanged", len(tensors.unchanged)),
            ("largest logit difference between run and export", f"{verified.max_logit_diff:.1e}"),
            ("equal probe answers", f"{verified.equal_answers} of {len(verified.answers)}"),
        ],
        timings=timings,
    )


def curve_points(losses: Sequence[float]) -> str:
    """Return the SVG points of a curve in the box (50, 10) to (710, 190)."""
    low, high = min(losses), max(losses)
    span = max(high - low, 1e-9)
    last = max(len(losses) - 1, 1)
    return " ".join(
        f"{50 + 660 * k / last:.1f},{190 - 180 * (loss - low) / span:.1f}"
        for k, loss in enumerate(losses)
    )


def _interval(summary: dict[str, Any]) -> str:
    return f"{summary['f1']:.3f} [{summary['f1_low']:.3f}, {summary['f1_high']:.3f}]"


def _card(item: Item, before: Record, after: Record) -> dict[str, Any]:
    return {
        "question": before.question,
        "sample_id": before.sample_id,
        "before": _side(item, before, "before"),
        "after": _side(item, after, "after"),
    }


def _side(item: Item, record: Record, name: str) -> dict[str, Any]:
    assert item.sampled is not None
    good = record.score.f1 > 0.99
    points = parse_points(record.said, size_wh=item.sampled.size_wh, tolerant=True)
    images = read_video(item.sample.media.paths[0], item.sampled)
    frames = []
    for image, time_s in zip(images, item.sampled.times_s, strict=True):
        answered = [p.xy_px for p in points if abs(p.frame_id - time_s) < _SLACK_S]
        if answered:
            marks = [Mark(xy_px, GREEN if good else RED) for xy_px in answered]
            uri = draw_image(image, marks, _boxes_at(item, record.label, time_s))
            frames.append({"uri": uri, "caption": f"{name}, {time_s:.1f} s"})
    return {"name": name, "good": good, "answer": record.said, "frames": frames}


def _boxes_at(item: Item, label: str, time_s: float) -> list[Outline]:
    assert item.sampled is not None
    boxes = [
        clip_box(seen.shape, item.sampled.size_wh)
        for track in visible_tracks(item.sample, label, item.sampled)
        for seen in track.sightings
        if seen.time_s == time_s and isinstance(seen.shape, Box)
    ]
    return [Outline(box.xyxy_px, LABEL) for box in boxes if box is not None]
