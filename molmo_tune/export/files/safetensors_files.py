"""Reading and writing safetensors row by row, so that no tensor need ever be in memory whole.

The format is a length, a JSON header and the bytes. The libraries' reader maps files into memory
(touched pages count as ours) and its writer wants all tensors of a file at once; a merge of 16 GB
through them needs as much memory as the largest shard. Here rows are read with plain reads and
written as they come, made by threads (`ahead`). Order and metadata of a header can be kept, so a
file whose tensors did not change is written bit for bit as it was.

What it does not do: know what the tensors mean, or create indexes of shards (`checkpoint`).
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

CHUNK_BYTES = 2 << 20
"""A piece with its float32 copy fits a processor's cache; 16 MiB were merged three times slower."""
Piece = Callable[[], torch.Tensor]
"""Makes some rows of a tensor; called in a thread."""
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
    """Name, type and shape of a tensor that is to be written."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        """Size in a file."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor in a file. ``start``: offset of its first byte in the file."""

    file: Path
    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int

    @property
    def num_rows(self) -> int:
        """Extent of the first axis; 1 for a scalar."""
        return self.shape[0] if self.shape else 1

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    def rows(self, first: int = 0, last: int | None = None) -> torch.Tensor:
        """Rows ``first`` to ``last`` (exclusive) in the stored type, in memory of their own."""
        last = self.num_rows if last is None else last
        shape = (last - first, *self.shape[1:]) if self.shape else ()
        made = torch.empty(shape, dtype=self.dtype)
        if made.numel():
            with self.file.open("rb", buffering=0) as file:
                file.seek(self.start + first * self.row_bytes)
                _read_into(file, _bytes_of(made), self.file)
        return made

    def chunks(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """Ranges of rows that cover ``first`` to ``last``, each about `CHUNK_BYTES` large."""
        step = max(1, CHUNK_BYTES // max(1, self.row_bytes))
        for start in range(first, last, step):
            yield start, min(start + step, last)


@dataclass(frozen=True, slots=True)
class TensorFile:
    """A safetensors file's tensors in the order of their bytes, and its metadata."""

    path: Path
    tensors: tuple[StoredTensor, ...]
    metadata: dict[str, str]


def read_tensor_file(path: Path) -> TensorFile:
    """Read the header of a safetensors file.

    Raises:
        UserError: no such file, no safetensors, or cut short.
    """
    header, data_start = _header(path)
    metadata = header.pop("__metadata__", {})
    tensors = []
    for name, entry in header.items():
        dtype = _DTYPES.get(entry["dtype"])
        if dtype is None:
            raise UserError(path, f"{name} is of type {entry['dtype']}", f"one of {list(_DTYPES)}")
        start = data_start + entry["data_offsets"][0]
        tensors.append(StoredTensor(path, name, dtype, tuple(entry["shape"]), start))
    end = data_start + max((entry["data_offsets"][1] for entry in header.values()), default=0)
    if path.stat().st_size != end:
        raise UserError(path, f"is {path.stat().st_size} bytes long", f"{end}", "download it again")
    return TensorFile(path, tuple(sorted(tensors, key=lambda tensor: tensor.start)), metadata)


def _header(path: Path) -> tuple[dict[str, Any], int]:
    broken = UserError(path, "is no safetensors file", fix="download it again")
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
        tensors: in the order of their bytes, each with its pieces, in the order of its rows.
        metadata: of the header.

    Raises:
        ValueError: the pieces of a tensor are not of its type or do not add up to its size.
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
    """Write tensors' rows into an open raw file, each tensor from its byte of ``starts`` on.

    Raises:
        ValueError: the pieces of a tensor are not of its type or do not add up to its size.
    """
    jobs = (partial(_made, spec, piece) for spec, pieces in tensors for piece in pieces)
    written = dict.fromkeys(starts, 0)
    for spec, rows in prefetch(jobs):
        if rows.dtype != spec.dtype:
            raise ValueError(f"{spec.name}: a piece of {rows.dtype} for {spec.dtype}")
        file.seek(starts[spec.name] + written[spec.name])
        written[spec.name] += _write_all(file, rows)
    for spec, _ in tensors:
        if written[spec.name] != spec.num_bytes:
            found = written[spec.name]
            raise ValueError(f"{spec.name}: {found} bytes for a shape of {spec.num_bytes}")


def _made(spec: TensorSpec, piece: Piece) -> tuple[TensorSpec, torch.Tensor]:
    return spec, piece()


def _write_all(file: BinaryIO, rows: torch.Tensor) -> int:
    whole = left = _bytes_of(rows.contiguous())
    while left:  # a raw file may write less than it was given
        left = left[file.write(left) :]
    return len(whole)


def _bytes_of(tensor: torch.Tensor) -> memoryview:
    return tensor.reshape(-1).view(torch.uint8).numpy().data


def _read_into(file: BinaryIO, view: memoryview, path: Path) -> None:
    while view:
        count = file.readinto(view)  # type: ignore[attr-defined]
        if not count:
            raise UserError(path, "ends too early", fix="download it again")
        view = view[count:]
