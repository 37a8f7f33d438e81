"""A tokenizer with 640 entries that behaves like the released one.

Like Qwen's tokenizer, which Molmo 2 uses, it is byte-level BPE, so it encodes any text. Every digit
is one token, so coordinates cost as many tokens as in the real model. It has no BOS, so the end
token `<|im_end|>` starts a sequence. Dummy tokens fill the base vocabulary, and Molmo's special
tokens follow in the released order, in the extra rows of the embedding.

Limitations: compresses text poorly. The merges come from the few phrases below, so words of a
user's domain split into letters, as rare words do in a real model.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

from molmo_tune.grounding.text import format_image_points, format_tracks
from molmo_tune.grounding.tracks import TrackFrame, TrackPoint

BASE_VOCAB_SIZE = 640
NUM_MERGED_TOKENS = 610  # 256 bytes and the merges; dummies fill the base vocabulary
END_OF_TEXT, IM_START, IM_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"

# In the released order: token k of this list has the id BASE_VOCAB_SIZE + k.
MOLMO_TOKENS = (
    "<im_start>",
    "<im_end>",
    "<im_patch>",
    "<im_col>",
    "<low_res_im_start>",
    "<|image|>",
    "<im_low>",
    "<frame_start>",
    "<frame_end>",
    "<|video|>",
    "<|points|>",
    "<|token_index|>",
    "<|vit_index|>",
    "<|vit_loc|>",
)

_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

_PHRASES = """Point to the Point at the Find the Locate the Show me the Where is the Where are the
Can you point to the Please point to Mark the in the image in the video in this video in each image
How many are there Count the Track the in FPS Please say There are none. No tracks available. if it
is not there are a total of shows Counting the user assistant subtitle Image Describe what happens
red orange yellow green cyan blue purple pink brown white black gray circle square triangle star
diamond ring cross bar shape object thing left right top bottom first last appears and when
video_point_ground_start_end: video_single_point_track_per_frame: video_short_answer: vqa2:"""


def train_tokenizer() -> Tokenizer:
    """Return the tokenizer, the same one on every call; reads no file."""
    tokenizer = Tokenizer(BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=NUM_MERGED_TOKENS,
        min_frequency=1,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    num_learned = tokenizer.get_vocab_size()
    num_dummies = BASE_VOCAB_SIZE - num_learned - 3
    names = [END_OF_TEXT, IM_START, IM_END]
    names += [f"|<EXTRA_TOKENS_{k}>|" for k in range(num_dummies)]
    names += list(MOLMO_TOKENS)
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in names])
    return tokenizer


def _corpus() -> Iterator[str]:
    lines = [*_PHRASES.splitlines(), _example_answers()]
    yield from lines
    for line in lines:  # each word also occurs alone, after a space
        for word in line.split():
            yield from (f" {word}",) * 4


def _example_answers() -> str:
    frames = [(0.0, (100, 200)), (0.5, (110, 210))]
    tracks = [TrackFrame(time, (TrackPoint(0, xy),)) for time, xy in frames]
    size = (1000, 1000)
    points = format_image_points([(100, 200)], size_wh=size, label="the")
    return f"{points} {format_tracks(tracks, size_wh=size, label='the')}"


def save_tokenizer(folder: Path) -> None:
    """Write `tokenizer.json` and the companion files under the released names."""
    tokenizer = train_tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "add_bos_token": False,
        "add_prefix_space": False,
        "bos_token": IM_END,
        "clean_up_tokenization_spaces": False,
        "eos_token": IM_END,
        "errors": "replace",
        "extra_special_tokens": {},
        "model_max_length": 4096,
        "pad_token": END_OF_TEXT,
        "processor_class": "Molmo2Processor",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    special = {"bos_token": IM_END, "eos_token": IM_END, "pad_token": END_OF_TEXT}
    special_map = {**special, "additional_special_tokens": list(MOLMO_TOKENS)}
    (folder / "special_tokens_map.json").write_text(json.dumps(special_map, indent=2) + "\n")
