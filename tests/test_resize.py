"""Resized gray levels match the reference, on any CPU, with any thread count, at any ratio."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from molmo_tune.encoding.bilinear import resize_bilinear, resize_frame

RATIOS = [
    ((720, 1280), (378, 378)),  # thousands of values exactly halfway
    ((756, 756), (378, 378)),  # a quarter of all values
    ((1080, 1920), (378, 378)),
    ((480, 640), (644, 644)),  # enlarged
    ((97, 53), (112, 112)),
    ((300, 378), (378, 378)),  # one side stays
    ((1, 2), (378, 378)),
]


def written_out(picture: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Resize with the reference's arithmetic for every value: fused sums, columns before rows."""

    def along(values: NDArray[np.float32], axis: int, target: int) -> NDArray[np.float32]:
        size = values.shape[axis]
        scale = np.float64(np.float32(size) / np.float32(target))
        places = ((np.arange(target) + 0.5) * scale - 0.5).astype(np.float32).clip(0)
        first = places.astype(int)
        shape = [1, 1, 1]
        shape[axis] = target
        weight = (places - first.astype(np.float32)).reshape(shape)
        near = values.take(first, axis)
        far = values.take((first + 1).clip(max=size - 1), axis) * weight
        fused = near.astype(np.float64) * (np.float32(1) - weight) + far
        return fused.astype(np.float32)

    values = along(along(picture.astype(np.float32), 1, width), 0, height)
    return np.round(values).clip(0, 255).astype(np.uint8)


def pictures(height: int, width: int) -> list[NDArray[np.uint8]]:
    random = np.random.default_rng(height * width)
    noise = random.integers(0, 256, (height, width, 3), np.uint8)
    steps = (noise // 128 * 255).astype(np.uint8)
    return [noise, steps]


@pytest.mark.parametrize(("size", "target"), RATIOS)
def test_every_value_matches_the_reference(size: tuple[int, int], target: tuple[int, int]) -> None:
    for picture in pictures(*size):
        expected = written_out(picture, *target)
        assert np.array_equal(resize_frame(picture, *target), expected)
        for layout in (torch.contiguous_format, torch.channels_last):
            batch = torch.from_numpy(np.stack([picture, picture[::-1]])).permute(0, 3, 1, 2)
            resized = resize_bilinear(batch.contiguous(memory_format=layout).float(), *target)
            assert np.array_equal(resized[0].permute(1, 2, 0).round().numpy(), expected)


@pytest.fixture
def threads_restored() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize(
    ("size", "target"),
    [
        ((378, 800), (378, 910)),  # PyTorch's kernel for several threads is off by 0.0077 levels
        ((800, 378), (910, 378)),
        ((50, 2000), (378, 2240)),
        ((720, 1280), (378, 378)),
        ((600, 800), (644, 910)),
    ],
)
def test_pixels_do_not_depend_on_the_number_of_threads(
    size: tuple[int, int], target: tuple[int, int], threads: int, threads_restored: None
) -> None:
    torch.set_num_threads(threads)
    for picture in pictures(*size):
        assert np.array_equal(resize_frame(picture, *target), written_out(picture, *target))


def test_many_values_are_halfway_between_levels() -> None:
    """More than a fifth of the values are exactly halfway and could round either way."""
    picture = pictures(756, 756)[0].astype(np.float64)
    means = picture.reshape(378, 2, 378, 2, 3).mean((1, 3))
    assert (means % 1 == 0.5).mean() > 0.2


def digest() -> str:
    """Return the digest of the resized images with the most values halfway."""
    resized = [resize_frame(pictures(*size)[0], *target) for size, target in RATIOS[:3]]
    return hashlib.sha256(b"".join(map(bytes, resized))).hexdigest()


@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["default", "avx2"])
def test_pixels_do_not_depend_on_the_cpu_kernel(kernel: str) -> None:
    """PyTorch's kernels with and without AVX2 give the same pixels as the kernel of this CPU."""
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": kernel}
    run = [sys.executable, "-c", "from tests.test_resize import digest; print(digest())"]
    done = subprocess.run(run, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == digest(), done.stderr[-2000:]
