"""`model.pt`, the unsharded state of Ai2's trainer, read and written row by row.

A file of `torch.save` is a zip of a pickle and the tensors' bytes, stored as they are. PyTorch can
write its skeleton and say where each tensor's bytes belong, so the rows go straight to their place
and no tensor is ever in memory whole; reading uses the same places. PyTorch reads such files as any
other. (The zip's check sums of the tensors are left at zero; PyTorch never looks at them, a general
unzip complains.)

What it does not do: the trainer's optimizer, or its sharded states (folders `model_and_optim`):
which keys and metadata its version of the format has was nowhere to be read; we do not guess.
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
from molmo_tune.export.files.tensor_files import (
    Piece,
    StoredTensor,
    TensorFile,
    TensorSpec,
    write_pieces,
)

MODEL_PT = "model.pt"


def read_torch_file(path: Path) -> TensorFile:
    """Where the tensors of a flat state lie; their bytes are not read.

    Raises:
        UserError: no such file, or not a flat dictionary of whole tensors in today's format.
    """
    state = _skeleton(path)
    tensors = []
    for name, tensor in state.items():
        if not isinstance(tensor, torch.Tensor) or not tensor.is_contiguous():
            raise UserError(path, f"{name} is no plain tensor", "a state of Ai2's trainer")
        storage: Any = tensor.untyped_storage()
        start = storage._checkpoint_offset + tensor.storage_offset() * tensor.dtype.itemsize
        tensors.append(StoredTensor(path, name, tensor.dtype, tuple(tensor.shape), start))
    return TensorFile(path, tuple(sorted(tensors, key=lambda tensor: tensor.start)), {})


def write_torch_file(path: Path, tensors: Sequence[tuple[TensorSpec, Iterable[Piece]]]) -> None:
    """Write a flat state as the tensors' rows are produced; see `write_tensor_file`.

    Raises:
        ValueError: the pieces of a tensor are not of its type or do not add up to its size.
        OSError: the disk is full or not writable.
    """
    with FakeTensorMode():
        skeleton = {spec.name: torch.empty(spec.shape, dtype=spec.dtype) for spec, _ in tensors}
    with path.open("wb") as file, skip_data(materialize_fake_tensors=True):
        torch.save(skeleton, file)
    places = {tensor.name: tensor.start for tensor in read_torch_file(path).tensors}
    with path.open("r+b", buffering=0) as file:
        write_pieces(file, tensors, places)


def _skeleton(path: Path) -> dict[str, Any]:
    try:
        with FakeTensorMode():
            state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(path, f"cannot be read ({error.strerror})") from error
    except (RuntimeError, pickle.UnpicklingError, ValueError, KeyError, EOFError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UserError(path, f"is no state of weights ({reason})", "what torch.save wrote") from (
            error
        )
    if not isinstance(state, dict):
        raise UserError(path, f"holds a {type(state).__name__}", "a flat dictionary of tensors")
    return state
