"""Every odd clip is decoded as ffmpeg decodes it, or refused with one clear error."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from molmo_tune.choices import Decoder
from molmo_tune.errors import UserError
from molmo_tune.media import decoding
from molmo_tune.media.clip import sample_video
from molmo_tune.media.decode_timeout import iterate_in_thread
from molmo_tune.media.frame_index import index_file
from molmo_tune.media.video import VideoInfo, file_state, probe_video, read_frames, stream_frames
from tests.odd_clips import (
    HAS_FFMPEG,
    ODD,
    cut_by_edit_list,
    ffmpeg_frames,
    ffmpeg_times,
    make_odd,
    rotated,
)
from tests.tiers import slow_except

needs_ffmpeg = pytest.mark.skipif(not HAS_FFMPEG, reason="needs the ffmpeg command")
TURNS = ("rotated90", "rotated180", "rotated270")
MADE = (*ODD, *TURNS, "edit_list")
UNTIMED = ("mpeg4_packed.avi",)  # ffprobe reports no times for it
_COUNTED_OTHERWISE = ("interlaced.ts", "mpeg4_packed.avi", "mpeg2.mpg", "start_3s.ts")
REFUSED: dict[str, tuple[str, ...]] = {  # frame count differs from the packets, or no seek
    "decord": ("live.mkv",),
    "torchcodec": (*_COUNTED_OTHERWISE, "open_gop.mp4"),
}
WRONG: dict[str, tuple[str, ...]] = {  # wrong frames after a seek, without an error
    "decord": (*_COUNTED_OTHERWISE, "h264.avi", "hevc_10bit.mp4"),
    "torchcodec": (),
}
DAMAGED = ("truncated_faststart.mp4", "truncated_no_moov.mp4")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("odd")


def _make(name: str, folder: Path) -> Path:
    if name in ODD:
        return make_odd(name, folder)
    plain = make_odd("bframes.mp4", folder)
    return cut_by_edit_list(plain) if name == "edit_list" else rotated(plain, int(name[7:]))


def _matches_ffmpeg(path: Path) -> None:
    """Check all frames, some far apart and one alone: pixels, times and size match ffmpeg's."""
    info = probe_video(path)
    theirs = ffmpeg_frames(path, info.size_wh)
    assert info.num_frames == len(theirs)
    last = info.num_frames - 1
    for indices in (range(last + 1), [*range(0, last, 7), last, last], [last * 2 // 3]):
        assert np.array_equal(read_frames(path, indices), theirs[list(indices)])
    if path.name not in UNTIMED:
        times = np.array(ffmpeg_times(path))
        assert np.allclose(info.starts_s, times - times[0], atol=1e-6)
    assert info.duration_s > info.starts_s[-1]


@needs_ffmpeg
@pytest.mark.parametrize("name", MADE)
def test_odd_clips_match_ffmpeg(name: str, made: Path) -> None:
    _matches_ffmpeg(_make(name, made))


@pytest.mark.slow
@needs_ffmpeg
def test_shared_clips_match_ffmpeg_or_are_refused(shared: Path) -> None:
    clips = [p for p in sorted((shared / "samples" / "videos").rglob("*.*")) if p.is_file()]
    assert len(clips) > 5
    for clip in clips:
        if clip.name in DAMAGED:
            with pytest.raises(UserError, match=r"cut short|does not decode|not a video"):
                probe_video(clip)
        else:
            _matches_ffmpeg(clip)


@needs_ffmpeg
def test_size_aspect_and_duration(made: Path) -> None:
    assert probe_video(_make("nonsquare.mp4", made)).pixel_aspect == pytest.approx(16 / 11)
    assert probe_video(_make("bframes.mp4", made)).pixel_aspect == 1.0
    assert probe_video(_make("rotated90", made)).size_wh == (120, 160)
    assert probe_video(_make("long_audio.mp4", made)).duration_s == pytest.approx(2)
    one = sample_video(_make("one_frame.mp4", made), max_frames=8, max_fps=2.0)
    assert one.times_s == (0.0, pytest.approx(0.1))
    assert one.indices == (0, 0)


@needs_ffmpeg
@pytest.mark.parametrize("name", slow_except([*ODD, *TURNS], "bframes.mp4"))
@pytest.mark.parametrize("decoder", ["decord", "torchcodec"])
def test_decoders_agree(name: str, decoder: Decoder, made: Path) -> None:
    """The same frames within rounding, or a refusal, except for known errors of decord."""
    if decoder == "torchcodec":
        _needs_torchcodec()
    path = _make(name, made)
    last = probe_video(path).num_frames - 1
    indices = [0, last // 3, last // 2, last, last]
    if name in REFUSED[decoder]:
        with pytest.raises(UserError, match=r"set video\.decoder: pyav"):
            read_frames(path, indices, decoder=decoder)
        return
    theirs = read_frames(path, indices, decoder=decoder)
    differ = np.abs(read_frames(path, indices).astype(int) - theirs).max()
    assert (differ > 2) == (name in WRONG[decoder])


def _needs_torchcodec() -> None:
    try:
        import torchcodec.decoders  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:
        pytest.skip(f"torchcodec does not load: {str(error).splitlines()[0]}")


@needs_ffmpeg
def test_a_decoder_with_another_frame_count_is_refused(made: Path) -> None:
    path = _make("edit_list", made)
    with pytest.raises(UserError, match="decord counts 30 frames; expected 23"):
        read_frames(path, [0], decoder="decord")


@needs_ffmpeg
def test_damaged_files(made: Path, tmp_path: Path) -> None:
    good = _make("one_keyframe.mp4", made).read_bytes()
    files = {"empty": b"", "text": b"no video" * 99, "half": good[: len(good) // 2]}
    for name, content in files.items():
        path = tmp_path / f"{name}.mp4"
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"not a video|cut short"):
            probe_video(path)
    middle = bytearray(good)
    start = len(good) // 2
    middle[start : start + 3000] = random.Random(0).randbytes(3000)
    broken = tmp_path / "middle.mp4"
    broken.write_bytes(middle)
    with pytest.raises(UserError, match=r"frame \d+ \(at .* s\).*does not decode|cut short"):
        read_frames(broken, range(probe_video(broken).num_frames))
    with pytest.raises(UserError, match="no such video"):
        probe_video(tmp_path / "none.mp4")


def test_a_blocking_file_times_out(tmp_path: Path) -> None:
    is_over = threading.Event()

    def hanging() -> Iterator[int]:
        yield 1
        is_over.wait(20)

    started, taken = time.perf_counter(), []
    with pytest.raises(UserError, match=r"no frame within 0\.2 s"):
        taken += list(iterate_in_thread(hanging(), 0.2, tmp_path))
    is_over.set()
    assert time.perf_counter() - started < 5


def test_an_error_in_the_thread_reaches_the_caller(tmp_path: Path) -> None:
    def failing() -> Iterator[int]:
        yield from (1, 2, 3, 4)
        raise UserError("clip", "broken")

    taken = iterate_in_thread(failing(), 5.0, tmp_path)
    assert [next(taken) for _ in range(4)] == [1, 2, 3, 4]
    with pytest.raises(UserError, match="clip: broken"):
        next(taken)


def test_closing_the_iterator_ends_its_thread(pond: Path) -> None:
    clip = sorted((pond / "clips").iterdir())[0]
    before = threading.active_count()
    frames = stream_frames(clip, range(8))
    assert next(frames)[0] == 0
    frames.close()  # type: ignore[attr-defined]
    for _ in range(50):
        if threading.active_count() <= before:
            return
        time.sleep(0.1)
    raise AssertionError("the decoding thread is still alive")


def test_a_folder_of_frames_is_a_video(tmp_path: Path) -> None:
    folder = tmp_path / "clip"
    folder.mkdir()
    for number in range(12):
        gray = np.full((20, 30, 3), number * 20, np.uint8)
        Image.fromarray(gray).save(folder / f"frame_{number}.png")
    with pytest.raises(UserError, match=r"does not state its rate.*fps\.txt"):
        probe_video(folder)
    (folder / "fps.txt").write_text("4\n")
    info = probe_video(folder)
    assert (info.num_frames, info.duration_s, info.size_wh) == (12, 3.0, (30, 20))
    assert info.starts_s[:3] == (0.0, 0.25, 0.5)
    assert read_frames(folder, [10, 2])[:, 0, 0, 0].tolist() == [200, 40]
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(folder / "frame_11.png")
    with pytest.raises(UserError, match="is 9x9; expected 30x20"):
        read_frames(folder, [11])


def test_a_changed_folder_is_read_again(tmp_path: Path) -> None:
    """Overwriting an image or the rate is noticed, though the folder's own time stays the same."""
    folder = tmp_path / "clip"
    folder.mkdir()
    (folder / "fps.txt").write_text("4")
    for number in range(3):
        Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(folder / f"{number}.png")
    states, infos = [file_state(folder)], [probe_video(folder)]

    def changed() -> VideoInfo:
        states.append(file_state(folder))
        infos.append(probe_video(folder))
        return infos[-1]

    (folder / "fps.txt").write_text("2.5")
    assert changed().duration_s == 1.2
    (folder / "3.png").write_bytes((folder / "2.png").read_bytes())
    assert changed().num_frames == 4
    Image.fromarray(np.zeros((40, 30, 3), np.uint8)).save(folder / "0.png")
    assert changed().size_wh == (30, 40)
    Image.fromarray(np.full((20, 30, 3), 9, np.uint8)).save(folder / "2.png")
    changed()
    assert len(set(states)) == 5


def test_the_rate_of_a_motchallenge_folder(tmp_path: Path) -> None:
    folder = tmp_path / "img1"
    folder.mkdir()
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(folder / "000001.jpg")
    (tmp_path / "seqinfo.ini").write_text("[Sequence]\nframeRate=25\n")
    assert probe_video(folder).duration_s == 0.04
    (tmp_path / "seqinfo.ini").write_text("[Sequence]\nframeRate=fast\n")
    (folder / "000002.jpg").write_bytes((folder / "000001.jpg").read_bytes())
    with pytest.raises(UserError, match="'fast'; expected frames per second"):
        probe_video(folder)


@needs_ffmpeg
@pytest.mark.parametrize("name", ["bframes.mp4", "open_gop.mp4", "hevc_10bit.mp4", "start_3s.ts"])
def test_seeking_to_key_frames_succeeds(name: str, made: Path) -> None:
    """Frames far apart are reached by seeking, not by decoding the file from its start."""
    path = _make(name, made)
    index, numbers = index_file(path), [2, 14, 26]
    runs = decoding._runs(index, numbers)
    assert len(runs) > 1
    found = [number for number, _ in decoding._decode_all(path, index, set(numbers), runs)]
    assert found == numbers
