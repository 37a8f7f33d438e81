"""Images of all sorts → model inputs in [-1, 1]; each oddity is a row of one table."""

from __future__ import annotations

import copy
import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from molmo_tune.commands.check import check
from molmo_tune.encoding.resize import ExactImageProcessor
from molmo_tune.encoding.vision_inputs import image_inputs
from molmo_tune.errors import UserError
from molmo_tune.media.image import image_oddities, image_size, read_image
from molmo_tune.recipe.loader import load_recipe
from tests.vectors.image_tasks import _processor

GRADIENT = np.linspace(0, 255, 120 * 160 * 3).reshape(120, 160, 3).astype(np.uint8)
GRAY = GRADIENT[:, :, 0]
DEEP = (GRAY.astype(np.uint16) << 8) + 77


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(Image.fromarray(GRADIENT), "PNG", exif=exif)


def deep_colors() -> bytes:
    """Return a 16-bit RGB PNG, which Pillow cannot write."""

    def chunk(name: bytes, data: bytes) -> bytes:
        body = name + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    rows = (GRADIENT.astype(">u2") << 8) + 33
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in rows)
    head = struct.pack(">IIBBBBB", 160, 120, 16, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def transparent() -> Image.Image:
    alpha = np.zeros((120, 160, 1), np.uint8)
    alpha[:60] = 255
    return Image.fromarray(np.concatenate([GRADIENT, alpha], axis=2))


def printed() -> Image.Image:
    inks = np.concatenate([255 - GRADIENT, np.zeros((120, 160, 1), np.uint8)], axis=2)
    return Image.fromarray(inks, "CMYK")


THREE_GRAYS = np.repeat(GRAY[:, :, None], 3, axis=2)
PALETTE = Image.fromarray(GRAY).convert("P")
KINDS: dict[str, tuple[bytes, NDArray[np.uint8], str]] = {
    "plain": (encoded(Image.fromarray(GRADIENT), "PNG"), GRADIENT, ""),
    "mirrored by EXIF": (turned(2), GRADIENT[:, ::-1], ""),
    "upside down by EXIF": (turned(3), GRADIENT[::-1, ::-1], ""),
    "a quarter turn by EXIF": (turned(6), np.rot90(GRADIENT, -1), ""),
    "turned and mirrored by EXIF": (turned(7), np.rot90(GRADIENT, 2).transpose(1, 0, 2), ""),
    "the other quarter turn by EXIF": (turned(8), np.rot90(GRADIENT), ""),
    "alpha is dropped, not blended": (encoded(transparent(), "PNG"), GRADIENT, "is transparent"),
    "gray": (encoded(Image.fromarray(GRAY), "PNG"), THREE_GRAYS, ""),
    "gray with alpha": (
        encoded(Image.merge("LA", [Image.fromarray(GRAY), Image.new("L", (160, 120))]), "PNG"),
        THREE_GRAYS,
        "is transparent",
    ),
    "black and white": (
        encoded(Image.fromarray(GRAY > 99), "PNG"),
        np.where(THREE_GRAYS > 99, 255, 0).astype(np.uint8),
        "",
    ),
    "a palette": (encoded(PALETTE, "PNG"), np.array(PALETTE.convert("RGB")), ""),
    "16-bit gray": (encoded(Image.fromarray(DEEP), "PNG"), THREE_GRAYS, "is 16-bit"),
    "16-bit gray, TIFF": (encoded(Image.fromarray(DEEP), "TIFF"), THREE_GRAYS, "is 16-bit"),
    "16-bit color": (deep_colors(), GRADIENT, ""),
    "for print": (encoded(printed(), "TIFF"), GRADIENT, "CMYK"),
    "animated": (
        encoded(
            Image.fromarray(GRADIENT),
            "WEBP",
            lossless=True,
            save_all=True,
            append_images=[Image.fromarray(255 - GRADIENT)],
        ),
        GRADIENT,
        "has 2 frames",
    ),
    "thin": (encoded(Image.fromarray(GRADIENT[:9]), "PNG"), GRADIENT[:9], "is thin"),
}


@pytest.fixture(scope="module")
def processor() -> Any:
    return _processor()


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_images(kind: str, tmp_path: Path, processor: Any) -> None:
    content, expected, oddity = KINDS[kind]
    path = tmp_path / "image"
    path.write_bytes(content)
    image = read_image(path)
    assert np.array_equal(image, expected)
    assert image_size(path) == expected.shape[1::-1]
    oddities = image_oddities(path)
    assert [oddity in one for one in oddities] == ([True] if oddity else [])
    inputs = image_inputs(processor, [image], 4)
    assert -1 <= inputs.patches.min() < inputs.patches.max() <= 1
    # The first patch of the overview is the upper left corner, which differs in each orientation.
    rows, columns = -(-image.shape[0] // 27), -(-image.shape[1] // 27)
    corner = image[:rows, :columns].mean() / 127.5 - 1
    assert inputs.patches[0, 0].mean() == pytest.approx(corner, abs=0.08)


NOISE = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
CUT = encoded(Image.fromarray(NOISE), "PNG")[:9000]
FAULTY: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "cannot identify"),
    "text": (b"no image", "cannot identify"),
    "cut": (CUT, "truncated"),
    "floats": (
        encoded(Image.fromarray(GRAY.astype(np.float32)), "TIFF"),
        "without a defined white",
    ),
    "32 bits": (
        encoded(Image.fromarray(GRAY.astype(np.int32) << 16), "TIFF"),
        "without a defined white",
    ),
}


@pytest.mark.parametrize("kind", FAULTY)
def test_faulty_images(kind: str, tmp_path: Path) -> None:
    content, reason = FAULTY[kind]
    path = tmp_path / "image.png"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"image\.png: not an image that opens \(.*{reason}"):
        read_image(path)


def test_many_images_and_many_crops(processor: Any) -> None:
    small, wide = GRADIENT, np.tile(GRADIENT, (2, 12, 1))
    one, both = image_inputs(processor, [wide], 8), image_inputs(processor, [small, wide], 8)
    assert len(both.patches) == len(one.patches) + 2
    assert np.array_equal(both.patches[2:], one.patches)
    shift = both.pooling[-len(one.pooling) :] - one.pooling
    assert set(shift[one.pooling >= 0].tolist()) == {2 * 729}
    few = image_inputs(processor, [wide], 3)
    assert len(few.patches) == 4
    assert len(one.patches) > 4
    wrong = copy.copy(processor)
    wrong.image_processor = ExactImageProcessor(do_rescale=False, do_normalize=False)
    with pytest.raises(ValueError, match=r"pixel values reach 255.*do not turn on rescaling"):
        image_inputs(wrong, [small], 4)


def test_check_decodes_all_media_on_request(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    rows = ["file,label,x1,y1,x2,y2"]
    for number, kind in enumerate(("plain", "16-bit gray", "plain")):
        (images / f"{number}.png").write_bytes(KINDS[kind][0])
        rows.append(f"{number}.png,dot,10,10,60,60")
    (images / "2.png").write_bytes(CUT)
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"""\
model: {{name: tiny}}
data:
  train:
    - format: table
      path: {tmp_path / "labels.csv"}
      media: {images}
      template: image_pointing
      columns: {{image: file, label: label, box: [x1, y1, x2, y2]}}
      units: pixel
output: {{dir: {tmp_path / "run"}}}
""")

    def output_of(*settings: str, decode: bool) -> tuple[int, str]:
        console = Console(record=True, width=400, file=io.StringIO(), soft_wrap=True)
        code = check(load_recipe(recipe, list(settings)), console, decode=decode)
        return code, console.export_text()

    assert output_of(decode=False)[0] == 0
    code, text = output_of(decode=True)
    assert code == 1
    assert "error   data.train: " in text
    assert "2.png: not an image that opens" in text
    assert "1 image: each " in text
    assert "2 of 3 media files decoded" in text
    code, text = output_of("data.max_unreadable_media=0.5", decode=True)
    assert code == 0
    assert "warning data.train: " in text
