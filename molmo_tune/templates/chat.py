"""The chat text around questions and answers, and the style tags some questions carry.

Molmo 2 was trained on Qwen's turn markers without a system turn, each message tokenized on its own:
`render_turns` returns these pieces. Training and inference must both use them, because the Hub's
chat template inserts a space before an assistant turn, which the model never saw. The begin token,
the vision tokens and the end token after each answer are tokens, not text; `molmo_tune.encoding`
adds them.

Most questions are plain. In supervised training, the styles outside `PLAIN_STYLES` had their name
in front (``video_point_ground_start_end: Mark the positions …``), so the model recognizes such a
question only by its tag.
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

# Evaluation sets use the tag of the training style that they resemble.
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
    """Return the tag in front of a question of this style, ``"vqa2:"``, or an empty string.

    One space follows the tag (see `with_style_prefix`).
    """
    style = _TRAINED_AS.get(style, style)
    if style.startswith("eval_multi_image_"):
        style = style.removeprefix("eval_")
    return "" if style in PLAIN_STYLES else f"{style}:"


def with_style_prefix(style: str, question: str) -> str:
    """Return the question after its style's tag and a space; unchanged without a tag."""
    prefix = style_prefix(style)
    return f"{prefix} {question}" if prefix else question


def render_turns(messages: Sequence[str]) -> list[str]:
    """Return the text pieces of a conversation, one per message, to be tokenized one by one.

    Args:
        messages: question, answer, question, …, starting with a question.

    Returns:
        For a question, its turn up to the start of the answer; from the second question on, it
        begins with the end marker of the previous answer. For an answer, the bare text, to which
        encoding adds the end token.
    """
    return [_user_turn(text, n == 0) if n % 2 == 0 else text for n, text in enumerate(messages)]


def _user_turn(text: str, is_first: bool) -> str:
    opening = "" if is_first else "<|im_end|>\n"
    return f"{opening}<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"
