"""`model.pt`, the unsharded state of Ai2's trainer, read and written row by row.

`torch.save` writes a zip of a pickle and the uncompressed tensor bytes. PyTorch can write the
skeleton without data and report the offset of each tensor, so rows are written in place and no
tensor must fit in memory; reading uses the same offsets. PyTorch loads such files as usual. (The
zip checksums of the tensors stay zero: PyTorch ignores them, `unzip` complains.)

Limitations: not the optimizer state, and not the trainer's sharded states (folders
`model_and_optim`), whose keys and metadata are undocumented.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.serialization import skip_data

from molmo_tune.errors import UserError
from molmo_tune.export.files.safetensors_files import (
    Piece,
    StoredTensor,
    TensorFile,
    TensorSpec,
    write_pieces,
)

MODEL_PT = "model.pt"


def read_torch_file(path: Path) -> TensorFile:
    """Read the names, shapes and offsets of a flat state's tensors, not their bytes.

    Raises:
        UserError: the file is missing, or not a flat dictionary of contiguous tensors.
    """
    state = _skeleton(path)
    tensors = []
    for name, tensor in state.items():
        if not isinstance(tensor, torch.Tensor) or not tensor.is_contiguous():
            raise UserError(path, f"{name} is not a plain tensor", "a state of Ai2's trainer")
        storage: Any = tensor.untyped_storage()
        start = storage._checkpoint_offset + tensor.storage_offset() * tensor.dtype.itemsize
        tensors.append(StoredTensor(path, name, tensor.dtype, tuple(tensor.shape), start))
    return TensorFile(path, tuple(sorted(tensors, key=lambda tensor: tensor.start)), {})


def write_torch_file(path: Path, tensors: Sequence[tuple[TensorSpec, Iterable[Piece]]]) -> None:
    """Write a flat state as the tensors' rows are produced; see `write_tensor_file`.

    Raises:
        ValueError: the pieces of a tensor have the wrong dtype or do not add up to its size.
        OSError: the disk is full or not writable.
    """
    with FakeTensorMode():
        skeleton = {spec.name: torch.empty(spec.shape, dtype=spec.dtype) for spec, _ in tensors}
    with path.open("wb") as file, skip_data(materialize_fake_tensors=True):
        torch.save(skeleton, file)
    starts = {tensor.name: tensor.start for tensor in read_torch_file(path).tensors}
    with path.open("r+b", buffering=0) as file:
        write_pieces(file, tensors, starts)


def _skeleton(path: Path) -> dict[str, Any]:
    try:
        with FakeTensorMode():
            state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(path, f"cannot be read ({error.strerror})") from error
    except (RuntimeError, pickle.UnpicklingError, ValueError, KeyError, EOFError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UserError(path, f"not a state of weights ({reason})", "a file of torch.save") from (
            error
        )
    if not isinstance(state, dict):
        raise UserError(path, f"contains a {type(state).__name__}", "a flat dictionary of tensors")
    return state
