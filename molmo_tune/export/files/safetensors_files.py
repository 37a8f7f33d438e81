"""Safetensors files, read and written row by row, so that no tensor must fit in memory.

The format is a length, a JSON header and the bytes. The library's reader maps files into memory
(touched pages count as ours) and its writer needs all tensors of a file at once; a merge of 16 GB
through them takes as much memory as the largest shard. Here rows are read with plain reads and
written as threads produce them (`prefetch`). Order and metadata of the header can be kept, so a
file without changed tensors is written bit-identically.

Limitations: the index of a sharded checkpoint is `checkpoint`'s and `merge`'s.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import torch

from molmo_tune.errors import UserError
from molmo_tune.export.files.prefetch import prefetch
from molmo_tune.units import count

CHUNK_BYTES = 2 << 20
"""A piece and its float32 copy fit in the CPU cache; pieces of 16 MiB merged three times slower."""
Piece = Callable[[], torch.Tensor]
"""Returns some rows of a tensor; called in a thread."""
_ALIGNMENT = 8  # of the first tensor's bytes, as the safetensors library writes them
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, dtype and shape of a tensor to write."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        """Size in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor in a file; ``start`` is the offset of its first byte."""

    file: Path
    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int

    @property
    def num_rows(self) -> int:
        """Size of the first axis; 1 for a scalar."""
        return self.shape[0] if self.shape else 1

    @property
    def row_bytes(self) -> int:
        """Size of a row in bytes."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    def rows(self, first: int = 0, last: int | None = None) -> torch.Tensor:
        """Return a copy of rows ``first`` to ``last`` (exclusive), in the stored dtype."""
        last = self.num_rows if last is None else last
        shape = (last - first, *self.shape[1:]) if self.shape else ()
        rows = torch.empty(shape, dtype=self.dtype)
        if rows.numel():
            with self.file.open("rb", buffering=0) as file:
                file.seek(self.start + first * self.row_bytes)
                _read_into(file, _bytes_of(rows), self.file)
        return rows

    def chunks(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """Yield row ranges of about `CHUNK_BYTES` that cover ``first`` to ``last`` (exclusive)."""
        step = max(1, CHUNK_BYTES // max(1, self.row_bytes))
        for start in range(first, last, step):
            yield start, min(start + step, last)


@dataclass(frozen=True, slots=True)
class TensorFile:
    """The tensors of a file, in the order of their bytes, and its metadata."""

    path: Path
    tensors: tuple[StoredTensor, ...]
    metadata: dict[str, str]


def read_tensor_file(path: Path) -> TensorFile:
    """Read the header of a safetensors file.

    Raises:
        UserError: the file is missing, truncated, or not a safetensors file.
    """
    header, data_start = _header(path)
    metadata = header.pop("__metadata__", {})
    tensors = []
    for name, entry in header.items():
        dtype = _DTYPES.get(entry["dtype"])
        if dtype is None:
            expected = f"one of {', '.join(_DTYPES)}"
            raise UserError(path, f"{name} has dtype {entry['dtype']}", expected)
        start = data_start + entry["data_offsets"][0]
        tensors.append(StoredTensor(path, name, dtype, tuple(entry["shape"]), start))
    end = data_start + max((entry["data_offsets"][1] for entry in header.values()), default=0)
    if path.stat().st_size != end:
        found = f"has {count(path.stat().st_size, 'byte')}"
        raise UserError(path, found, count(end, "byte"), "download it again")
    return TensorFile(path, tuple(sorted(tensors, key=lambda tensor: tensor.start)), metadata)


def _header(path: Path) -> tuple[dict[str, Any], int]:
    broken = UserError(path, "not a safetensors file", fix="download it again")
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 0 < length < path.stat().st_size:
                raise broken
            return json.loads(file.read(length)), 8 + length
    except OSError as error:
        raise UserError(path, f"cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise broken from error


def write_tensor_file(
    path: Path,
    tensors: Sequence[tuple[TensorSpec, Iterable[Piece]]],
    metadata: dict[str, str],
) -> None:
    """Write a safetensors file as the tensors' rows are produced.

    Args:
        path: the new file.
        tensors: in the order of their bytes, each with its pieces in the order of its rows.
        metadata: of the header.

    Raises:
        ValueError: the pieces of a tensor have the wrong dtype or do not add up to its size.
        OSError: the disk is full or not writable.
    """
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    offset = 0
    for spec, _ in tensors:
        end = offset + spec.num_bytes
        header[spec.name] = {
            "dtype": _NAMES[spec.dtype],
            "shape": list(spec.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    first = 8 + len(text)
    starts = {spec.name: first + header[spec.name]["data_offsets"][0] for spec, _ in tensors}
    with path.open("wb", buffering=0) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        write_pieces(file, tensors, starts)


def write_pieces(
    file: BinaryIO,
    tensors: Sequence[tuple[TensorSpec, Iterable[Piece]]],
    starts: dict[str, int],
) -> None:
    """Write the rows of tensors into an open raw file, each tensor at its offset in ``starts``.

    Raises:
        ValueError: the pieces of a tensor have the wrong dtype or do not add up to its size.
    """
    jobs = (partial(_rows_of, spec, piece) for spec, pieces in tensors for piece in pieces)
    written = dict.fromkeys(starts, 0)
    for spec, rows in prefetch(jobs):
        if rows.dtype != spec.dtype:
            raise ValueError(f"{spec.name}: got a piece of {rows.dtype}, not {spec.dtype}")
        file.seek(starts[spec.name] + written[spec.name])
        written[spec.name] += _write_all(file, rows)
    for spec, _ in tensors:
        if written[spec.name] != spec.num_bytes:
            found = written[spec.name]
            raise ValueError(f"{spec.name}: wrote {found} of {spec.num_bytes} bytes")


def _rows_of(spec: TensorSpec, piece: Piece) -> tuple[TensorSpec, torch.Tensor]:
    return spec, piece()


def _write_all(file: BinaryIO, rows: torch.Tensor) -> int:
    data = remaining = _bytes_of(rows.contiguous())
    while remaining:  # a raw file may write less than it is given
        remaining = remaining[file.write(remaining) :]
    return len(data)


def _bytes_of(tensor: torch.Tensor) -> memoryview:
    return tensor.reshape(-1).view(torch.uint8).numpy().data


def _read_into(file: BinaryIO, view: memoryview, path: Path) -> None:
    while view:
        num_read = file.readinto(view)  # type: ignore[attr-defined]
        if not num_read:
            raise UserError(path, "truncated", fix="download it again")
        view = view[num_read:]
