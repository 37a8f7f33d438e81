"""What merging a model of real size costs: peak memory, and time relative to copying its files.

    python -m tests.benchmarks.merge [--size 8B] [--method lora] [--parts language] [--scratch DIR]
        [--rounds 3] [--layers N] [--out FILE]

Writes a checkpoint of a released size with random weights, sharded like the released ones, and an
adapter for it into the scratch folder (8B: 18 GB, and as much again for the result), merges it in
its own process and removes everything. `--layers` shortens the decoder for a quick run.

A round is a copy, a merge, a merge and a copy, so that neither side always goes first; each starts
with an empty page cache if the machine permits, and ends when everything is on disk (`sync`).
"Merge" is reading headers and adapter, merging and writing all shards. It excludes the start of
Python and the verification after an export; the time of the whole process is printed, too. Quote
the round with the lowest load before it.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from molmo_tune.export.files.checkpoint import read_checkpoint
from molmo_tune.export.files.safetensors_files import Piece, TensorSpec, write_tensor_file
from molmo_tune.export.layouts.hub_layout import hub_names
from molmo_tune.export.layouts.tensor_layouts import native_shapes, tensor_parts, tensor_shape
from molmo_tune.export.merge import write_layout
from molmo_tune.export.weight_updates import PEFT_PREFIX, read_updates
from molmo_tune.model.adapters import PART_MODULES
from molmo_tune.model.released_configs import released_config

SHARD_BYTES = 5_000_000_000
NOISE_SIZE = 8 << 20
THREADS = 2  # of PyTorch
RANK, ALPHA = 32, 64


def write_checkpoint(config: Any, folder: Path) -> None:
    """A sharded checkpoint in hub layout, bfloat16, random."""
    config.to_json_file(folder / "config.json")
    shapes, vocab_size = native_shapes(config), config.text_config.vocab_size
    shards: list[list[TensorSpec]] = [[]]
    for name in hub_names(config):
        parts = tensor_parts("hub", name, shapes, vocab_size)
        spec = TensorSpec(name, torch.bfloat16, tensor_shape(parts or (), shapes))
        if shards[-1] and sum(s.num_bytes for s in shards[-1]) + spec.num_bytes > SHARD_BYTES:
            shards.append([])
        shards[-1].append(spec)
    noise = torch.randn(NOISE_SIZE).mul(0.02).bfloat16()
    weight_map = {}
    for number, specs in enumerate(shards, start=1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        tensors = [(spec, pieces(spec, noise)) for spec in specs]
        write_tensor_file(folder / name, tensors, {"format": "pt"})
        weight_map |= {spec.name: name for spec in specs}
    total = sum(spec.num_bytes for specs in shards for spec in specs)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def pieces(spec: TensorSpec, noise: torch.Tensor) -> Iterator[Piece]:
    """Yield the tensor's numbers, flat, in pieces."""
    left = spec.num_bytes // 2
    while left:
        piece = noise[: min(left, len(noise))]
        yield piece.contiguous
        left -= len(piece)


def write_adapter(config: Any, method: str, parts: list[str], folder: Path) -> None:
    """A PEFT adapter of random matrices on the named parts."""
    patterns = [PART_MODULES[part] for part in parts]  # type: ignore[index]
    tensors = {}
    for name, shape in native_shapes(config).items():
        module = name.removesuffix(".weight")
        if not any(re.fullmatch(pattern, module) for pattern in patterns):
            continue
        tensors[f"{PEFT_PREFIX}{module}.lora_A.weight"] = torch.randn(RANK, shape[1]) * 0.01
        tensors[f"{PEFT_PREFIX}{module}.lora_B.weight"] = torch.randn(shape[0], RANK) * 0.01
        if method == "dora":
            tensors[f"{PEFT_PREFIX}{module}.lora_magnitude_vector"] = torch.rand(shape[0]) + 1
    save_file(tensors, str(folder / "adapter_model.safetensors"), metadata={"format": "pt"})
    told = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "use_dora": method == "dora"}
    (folder / "adapter_config.json").write_text(json.dumps(told))


def copy(base: Path, out: Path) -> dict[str, Any]:
    """Copy all files, with a `sync` at the end like the merge."""
    empty_cache()
    started = time.perf_counter()
    out.mkdir()
    for file in sorted(base.iterdir()):
        shutil.copyfile(file, out / file.name)
    os.sync()
    seconds = time.perf_counter() - started
    shutil.rmtree(out)
    return {"seconds": round(seconds, 1)}


def merge(base: Path, adapter: Path, out: Path) -> dict[str, Any]:
    """Merge in a separate process."""
    empty_cache()
    started = time.perf_counter()
    command = [sys.executable, "-m", "tests.benchmarks.merge", "--merge", base, adapter, out]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    figures: dict[str, Any] = json.loads(told)
    figures["process_seconds"] = round(time.perf_counter() - started, 1)
    shutil.rmtree(out)
    return figures


def merge_here(base: Path, adapter: Path, out: Path) -> None:
    """Merge in this process and print the figures."""
    torch.set_num_threads(THREADS)
    started = time.perf_counter()
    out.mkdir()
    account = write_layout(read_checkpoint(base), read_updates(adapter), out, "hub", None)
    os.sync()
    seconds = time.perf_counter() - started
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    figures = {
        "seconds": round(seconds, 1),
        "peak_gib": round(peak_kib / 1024**2, 2),
        "tensors_merged": len(account.merged),
    }
    print(json.dumps(figures))


def empty_cache() -> None:
    """Drop the page cache if permitted."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("1")
    except OSError:
        print("the page cache cannot be emptied here; times are warm")


def measure_round(base: Path, adapter: Path, scratch: Path) -> dict[str, Any]:
    """Copy, merge, merge, copy; the ratio is between the sums."""
    found: dict[str, Any] = {"load_before": round(os.getloadavg()[0], 2)}
    found["copies"] = [copy(base, scratch / "copy")]
    found["merges"] = [merge(base, adapter, scratch / "out") for _ in range(2)]
    found["copies"].append(copy(base, scratch / "copy"))
    merged, copied = (sum(one["seconds"] for one in found[kind]) for kind in ("merges", "copies"))
    print(json.dumps(found | {"ratio": round(merged / copied, 2)}), flush=True)
    return found | {"ratio": round(merged / copied, 2)}


def machine() -> str:
    """Processor, its number, memory."""
    info = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    name = re.search(r"model name\s*: (.*)", info)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3
    return f"{name.group(1) if name else 'unknown'} x {os.cpu_count()}, {memory:.0f} GiB memory"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="8B", choices=("4B", "8B", "O-7B"))
    parser.add_argument("--layers", type=int, help="of the decoder, for a quick look")
    parser.add_argument("--method", default="lora", choices=("lora", "dora"))
    parser.add_argument("--parts", nargs="+", default=["language"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--out", type=Path, help="JSON file that the figures are added to")
    parser.add_argument("--merge", nargs=3, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.merge:
        merge_here(*options.merge)
        return
    config = released_config(options.size)
    if options.layers:
        config.text_config.num_hidden_layers = options.layers
    options.scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.scratch) as name:
        scratch = Path(name)
        base, adapter = scratch / "base", scratch / "adapter"
        base.mkdir()
        adapter.mkdir()
        write_checkpoint(config, base)
        write_adapter(config, options.method, options.parts, adapter)
        gigabytes = sum(file.stat().st_size for file in base.iterdir()) / 1e9
        rounds = [measure_round(base, adapter, scratch) for _ in range(options.rounds)]
    quietest = min(rounds, key=lambda one: one["load_before"])
    figures = {
        "date": datetime.date.today().isoformat(),
        "command": "python -m tests.benchmarks.merge " + " ".join(sys.argv[1:]),
        "machine": machine(),
        "gigabytes": round(gigabytes, 1),
        "quietest_round": quietest,
        "rounds": rounds,
    }
    print(json.dumps(figures, indent=1))
    if options.out:
        name = f"{options.size}, {options.method} on {', '.join(options.parts)}"
        kept = json.loads(options.out.read_text()) if options.out.is_file() else {}
        options.out.write_text(json.dumps(kept | {name: figures}, indent=1) + "\n")


if __name__ == "__main__":
    main()
