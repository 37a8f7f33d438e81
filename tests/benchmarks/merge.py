"""What merging a model of true size costs: peak memory, and time beside a plain copy of its files.

    python -m tests.benchmarks.merge [--size 8B] [--method lora] [--parts language] [--scratch DIR]

Writes a checkpoint of a released size with random weights, sharded as the released ones are, and an
adapter for it into the scratch folder (8B: 18 GB, and as much again for the result), merges it in
a process of its own and removes everything. The copy is timed before and after the merge, each from
and to a cold page cache where the machine lets us empty it.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file

from molmo_tune.export.changes import PEFT_PREFIX, read_changes
from molmo_tune.export.checkpoint import read_checkpoint
from molmo_tune.export.hub_layout import hub_names
from molmo_tune.export.layouts import native_shapes, tensor_parts, tensor_shape
from molmo_tune.export.merge import write_layout
from molmo_tune.export.tensor_files import CHUNK_BYTES, TensorSpec, write_tensor_file
from molmo_tune.model.adapters import PART_MODULES
from molmo_tune.model.released import released_config

SHARD_BYTES = 5_000_000_000
RANK, ALPHA = 32, 64


def write_checkpoint(size: str, folder: Path) -> None:
    """A sharded checkpoint in hub layout, bfloat16, random."""
    config = released_config(size)  # type: ignore[arg-type]
    config.to_json_file(folder / "config.json")
    shapes, vocab_size = native_shapes(config), config.text_config.vocab_size
    shards: list[list[TensorSpec]] = [[]]
    for name in hub_names(config):
        parts = tensor_parts("hub", name, shapes, vocab_size)
        spec = TensorSpec(name, torch.bfloat16, tensor_shape(parts or (), shapes))
        if shards[-1] and sum(s.num_bytes for s in shards[-1]) + spec.num_bytes > SHARD_BYTES:
            shards.append([])
        shards[-1].append(spec)
    noise = torch.randn(CHUNK_BYTES // 2).mul(0.02).bfloat16()
    weight_map = {}
    for number, specs in enumerate(shards, start=1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        tensors = [(spec, pieces(spec, noise)) for spec in specs]
        write_tensor_file(folder / name, tensors, {"format": "pt"})
        weight_map |= {spec.name: name for spec in specs}
    total = sum(spec.num_bytes for specs in shards for spec in specs)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def pieces(spec: TensorSpec, noise: torch.Tensor) -> Iterator[torch.Tensor]:
    """The tensor's numbers, flat, piece after piece."""
    left = spec.num_bytes // 2
    while left:
        piece = noise[: min(left, len(noise))]
        yield piece
        left -= len(piece)


def write_adapter(size: str, method: str, parts: list[str], folder: Path) -> None:
    """A PEFT adapter of random matrices on the named parts."""
    import re

    patterns = [PART_MODULES[part] for part in parts]  # type: ignore[index]
    tensors = {}
    for name, shape in native_shapes(released_config(size)).items():  # type: ignore[arg-type]
        module = name.removesuffix(".weight")
        if not any(re.fullmatch(pattern, module) for pattern in patterns):
            continue
        tensors[f"{PEFT_PREFIX}{module}.lora_A.weight"] = torch.randn(RANK, shape[1]) * 0.01
        tensors[f"{PEFT_PREFIX}{module}.lora_B.weight"] = torch.randn(shape[0], RANK) * 0.01
        if method == "dora":
            tensors[f"{PEFT_PREFIX}{module}.lora_magnitude_vector"] = torch.rand(shape[0]) + 1
    save_file(tensors, str(folder / "adapter_model.safetensors"), metadata={"format": "pt"})
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "use_dora": method == "dora"}
    (folder / "adapter_config.json").write_text(json.dumps(config))


def copy_seconds(base: Path, out: Path) -> float:
    """Seconds of a plain copy of all files, synchronised at the end as the merge is."""
    empty_cache()
    started = time.perf_counter()
    out.mkdir()
    for file in sorted(base.iterdir()):
        shutil.copyfile(file, out / file.name)
    subprocess.run(["sync"], check=False)
    seconds = time.perf_counter() - started
    shutil.rmtree(out)
    return seconds


def empty_cache() -> None:
    """Drop the page cache if we may."""
    subprocess.run(["sync"], check=False)
    try:
        Path("/proc/sys/vm/drop_caches").write_text("1")
    except OSError:
        print("the page cache cannot be emptied here; times are warm")


def merge_here(base: Path, adapter: Path, out: Path) -> None:
    """The merge, in a process of its own; prints its peak memory."""
    out.mkdir()
    account = write_layout(read_checkpoint(base), read_changes(adapter), out, "hub", None)
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"peak_kib": peak_kib, "merged": len(account.merged)}))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="8B", choices=("4B", "8B", "O-7B"))
    parser.add_argument("--method", default="lora", choices=("lora", "dora"))
    parser.add_argument("--parts", nargs="+", default=["language"])
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--merge", nargs=3, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.merge:
        merge_here(*options.merge)
        return
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        base, adapter, out = (Path(scratch) / name for name in ("base", "adapter", "out"))
        base.mkdir()
        adapter.mkdir()
        write_checkpoint(options.size, base)
        write_adapter(options.size, options.method, options.parts, adapter)
        num_bytes = sum(file.stat().st_size for file in base.iterdir())
        copies = [copy_seconds(base, Path(scratch) / "copy")]
        empty_cache()
        started = time.perf_counter()
        command = [sys.executable, "-m", "tests.benchmarks.merge", "--merge", base, adapter, out]
        told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        subprocess.run(["sync"], check=False)
        seconds = time.perf_counter() - started
        shutil.rmtree(out)
        copies.append(copy_seconds(base, Path(scratch) / "copy"))
        figures = json.loads(told)
        print(
            f"{options.size}, {num_bytes / 1e9:.1f} GB, {options.method} on "
            f"{', '.join(options.parts)}: {figures['merged']} tensors merged in {seconds:.0f} s, "
            f"plain copy {copies[0]:.0f} and {copies[1]:.0f} s "
            f"({seconds / min(copies):.2f}× the faster one); "
            f"peak memory {figures['peak_kib'] / 1024**2:.2f} GiB; "
            f"{torch.get_num_threads()} threads"
        )


if __name__ == "__main__":
    main()
