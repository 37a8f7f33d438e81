"""The chat text around questions and answers, and the style tags some questions carry.

Molmo 2 was trained on Qwen's turn markers without a system turn, each message tokenized on its own:
`render_turns` returns those pieces. Training and inference must both use them, because the hub's
chat template inserts a blank before an assistant turn that the model never saw. The begin token,
the vision tokens in front and the end token after each answer are tokens, not text, and are added
where text becomes tokens (`molmo_tune.encoding`).

Most questions are plain. The styles of the supervised stage outside `PLAIN_STYLES` had their name
put in front (``video_point_ground_start_end: Mark the positions …``), so a question of such a kind
must carry its tag to be recognized.
"""

from __future__ import annotations

from collections.abc import Sequence

_POINTING = {"pointing", "point_count", "cosyn_point"} | {
    f"multi_image_{task}"
    for task in ("pointing", "counting", "point_then_count", "count_then_point")
}
_VIDEO_POINTING = {"video_point", "video_point_count", "video_count", "video_count_point"} | {
    "video_point_track_per_frame",
    "video_point_track_all_frames",
    "video_point_track_start_end",
    "video_single_point_track_start_end",
}
_SPANS = ("clip_caption_start_end", "clip_transcript_start_end", "frame_caption_timestamp")
_TEXT = {"user_qa", "correction_qa", "text_sft", "long_caption", "short_caption"} | {
    "video_long_caption",
    "video_short_caption",
    "video_transcript",
    *(f"video_{span}{unit}" for span in _SPANS for unit in ("", "_in_seconds")),
}
_MULTIPLE_CHOICE = {
    "a_okvqa_mc",
    "ai2_diagram",
    "ai2_diagram_no_letter",
    "science_qa",
    "mantis_instruct_mc",
    "multi_image_mc",
    "multi_image_mc_exp",
    "video_multiple_choice",
    "video_multiple_choice_multiple_correct",
    "video_multiple_choice_w_subtitle",
}
PLAIN_STYLES = frozenset(_POINTING | _VIDEO_POINTING | _TEXT | _MULTIPLE_CHOICE)

# Evaluation sets borrow the tag of the training style that they look like.
_TRAINED_AS = {
    "eval_short_answer": "vqa2",
    "eval_multiple_choice": "a_okvqa_mc",
    "video_eval_short_answer": "video_short_answer",
    "video_eval_multiple_choice": "video_multiple_choice",
    "video_eval_multiple_choice_w_subtitle": "video_multiple_choice_w_subtitle",
    "video_short_answer_count_without_pointing": "video_short_answer",
    "video_multiple_choice_count_without_pointing": "video_multiple_choice",
}


def style_prefix(style: str) -> str:
    """Tag that stands in front of a question of this style: ``"vqa2:"``, or nothing.

    The tag is followed by one blank (see `with_style_prefix`).
    """
    style = _TRAINED_AS.get(style, style)
    if style.startswith("eval_multi_image_"):
        style = style.removeprefix("eval_")
    return "" if style in PLAIN_STYLES else f"{style}:"


def with_style_prefix(style: str, question: str) -> str:
    """The question with its style's tag and a blank in front, or as it is."""
    prefix = style_prefix(style)
    return f"{prefix} {question}" if prefix else question


def render_turns(messages: Sequence[str]) -> list[str]:
    """Text pieces of a conversation, one per message, tokenized one by one.

    Args:
        messages: question, answer, question, … beginning with a question.

    Returns:
        For a question its turn up to where the answer starts, opened (from the second on) by the
        end of the answer before it; for an answer the bare text, to which encoding adds the end
        token.
    """
    return [_user_turn(text, n == 0) if n % 2 == 0 else text for n, text in enumerate(messages)]


def _user_turn(text: str, is_first: bool) -> str:
    opening = "" if is_first else "<|im_end|>\n"
    return f"{opening}<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"
