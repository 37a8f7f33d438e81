"""The tokens of an image or a video, given its patch grid: the only place that lays them out.

    image  <low_res_im_start> rows·cols·<im_patch> <im_end>
           <im_start> rows·(cols·<im_patch> <im_col>) <im_end>
    images `Image 1` image `Image 2` image …       (numbered only when there are several)
    video  `0.0 ` <im_start> 81·<im_patch> <im_end> ` 0.5 ` <im_start> …

Times have one decimal. The checkpoint's processor determines the wrapper tokens (`<im_start>` or
`<frame_start>`), whether they enclose each frame or all frames together, and where column tokens
go; none of this is assumed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from molmo_tune.encoding.processor import Processor, Tokenizer
from molmo_tune.encoding.token_stream import Ids, text_ids

# Tokens that attend to each other in both directions (time and `Image N` texts do not).
BIDIRECTIONAL_TOKENS = (
    "<im_patch>",
    "<im_col>",
    "<im_start>",
    "<low_res_im_start>",
    "<frame_start>",
    "<im_end>",
    "<frame_end>",
    "<im_low>",
)


@dataclass(frozen=True, slots=True)
class VisionLayout:
    """Token ids and layout switches of one checkpoint."""

    patch: int
    column: int
    start: int
    end: int
    low_res_start: int
    frame_start: int
    frame_end: int
    bidirectional: frozenset[int]
    image_columns: bool
    low_res_columns: bool
    video_columns: bool
    wrap_each_frame: bool

    @classmethod
    def of(cls, processor: Processor) -> VisionLayout:
        """Return the layout of a `Molmo2Processor`."""
        to_id = processor.tokenizer.convert_tokens_to_ids
        low_res_columns = processor.use_single_crop_col_tokens
        if low_res_columns is None:
            low_res_columns = processor.image_use_col_tokens
        frames = processor.use_frame_special_tokens
        low_res = processor.use_single_crop_start_token
        return cls(
            patch=to_id("<im_patch>"),
            column=to_id("<im_col>"),
            start=to_id("<im_start>"),
            end=to_id("<im_end>"),
            low_res_start=to_id("<low_res_im_start>" if low_res else "<im_start>"),
            frame_start=to_id("<frame_start>" if frames else "<im_start>"),
            frame_end=to_id("<frame_end>" if frames else "<im_end>"),
            bidirectional=frozenset(map(to_id, BIDIRECTIONAL_TOKENS)),
            image_columns=bool(processor.image_use_col_tokens),
            low_res_columns=bool(low_res_columns),
            video_columns=bool(processor.video_use_col_tokens),
            # Only Ai2's own trainer has this switch; all released checkpoints wrap each frame.
            wrap_each_frame=bool(getattr(processor, "per_frame_special_token", True)),
        )


def image_ids(layout: VisionLayout, grid: Sequence[int]) -> Ids:
    """Return the tokens of one image; `grid`: pooled rows, columns of global view, then crops."""
    low_rows, low_cols, rows, cols = grid
    low_res = _grid_ids(layout, low_rows, low_cols, layout.low_res_columns)
    high_res = _grid_ids(layout, rows, cols, layout.image_columns)
    return [
        layout.low_res_start,
        *low_res,
        layout.end,
        layout.start,
        *high_res,
        layout.end,
    ]


def images_ids(layout: VisionLayout, grids: Sequence[Sequence[int]], tokenizer: Tokenizer) -> Ids:
    """Return the tokens of all images of a sample, numbered when there are several."""
    if len(grids) == 1:
        return image_ids(layout, grids[0])
    ids: Ids = []
    for number, grid in enumerate(grids, start=1):
        ids += text_ids(tokenizer, f"Image {number}") + image_ids(layout, grid)
    return ids


def video_ids(
    layout: VisionLayout, rows: int, cols: int, times_s: Sequence[float], tokenizer: Tokenizer
) -> Ids:
    """Return the tokens of one video: every frame after its time."""
    frame = _grid_ids(layout, rows, cols, layout.video_columns)
    if layout.wrap_each_frame:
        frame = [layout.frame_start, *frame, layout.frame_end]
    ids: Ids = []
    for number, time_s in enumerate(times_s):
        space = " " if number else ""
        ids += text_ids(tokenizer, f"{space}{format_frame_time(time_s)} ") + frame
    return ids if layout.wrap_each_frame else [layout.frame_start, *ids, layout.frame_end]


def format_frame_time(time_s: float) -> str:
    """Return the text of the time before a frame's tokens."""
    return f"{time_s:.1f}"


def _grid_ids(layout: VisionLayout, rows: int, cols: int, columns: bool) -> Ids:
    row = [layout.patch] * cols + ([layout.column] if columns else [])
    return row * rows
