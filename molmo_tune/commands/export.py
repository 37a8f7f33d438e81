"""`molmo-tune export RUN --out FOLDER [--layout …]`, or a checkpoint's folder instead of a run.

A run is merged and proven, and with `--quantize` then made smaller; a folder with weights and no
recipe is turned from its layout into another, bit for bit (`--like` says where its configuration
is, if it has none).
"""

from __future__ import annotations

import argparse
import json

from rich.console import Console

from molmo_tune.errors import UserError
from molmo_tune.export.report import VllmReport
from molmo_tune.run_folder import RunFolder


def run(options: argparse.Namespace) -> int:
    """Export and print the proof."""
    console = Console(soft_wrap=True, markup=False, highlight=False)
    adapters = {"adapter": _adapter, "vllm-adapter": _vllm_adapter}
    is_run = RunFolder(options.run).recipe.is_file()
    if options.layout in adapters:
        _refuse(options, "dtype", "like", "quantize")
        adapters[options.layout](options, console)
    elif is_run or not _holds_weights(options):
        _refuse(options, "like")
        _checkpoint(options, console)
    else:
        _refuse(options, "quantize")
        _convert(options, console)
    return 0


def _refuse(options: argparse.Namespace, *names: str) -> None:
    kind = "a run" if RunFolder(options.run).recipe.is_file() else "a checkpoint"
    for name in names:
        if getattr(options, name):
            given = f"{getattr(options, name)} with {kind} and --layout {options.layout or 'hub'}"
            raise UserError(f"--{name}", given, "none", "leave it away")


def _holds_weights(options: argparse.Namespace) -> bool:
    from molmo_tune.export.files.checkpoint import weight_files

    return options.run.is_dir() and any(options.run.iterdir()) and bool(weight_files(options.run))


def _checkpoint(options: argparse.Namespace, console: Console) -> None:
    from molmo_tune.export.export import export_run

    result = export_run(
        RunFolder(options.run),
        options.out,
        layout=options.layout,
        dtype=options.dtype,
        quantize=options.quantize,
    )
    account, proof = result.tensors, result.verification
    if result.found:
        were = "file was" if len(result.found) == 1 else "files were"
        console.print(f"gone on with a killed export: {len(result.found)} {were} whole already")
    lost = (
        f", {len(account.unchanged_trained)} trained ones as before"
        if account.unchanged_trained
        else ""
    )
    console.print(
        f"{len(account.merged)} tensors merged, {len(account.unchanged)} unchanged{lost}\n"
        f"logits differ from the run's by at most {proof.max_logit_diff:.1e}"
        + (f" (rounding to 16 bits: {proof.rounding_diff:.1e})" if proof.rounding_diff else "")
        + f"\n{proof.equal_answers} of {len(proof.answers)} probe answers equal"
    )
    if options.quantize:
        small = result.report["quantized"]
        console.print(
            f"{options.quantize}: loaded back, logits are those of the merged model quantized in "
            f"memory;\nthey differ from the unquantized ones by at most "
            f"{small['max_logit_diff']:.2g}, {small['mean_logit_diff']:.2g} on average; "
            f"{small['equal_answers']} of {len(small['answers'])} probe answers equal"
        )
    _say_for_vllm(result.report.get("vllm", {}), console)
    console.print(f"written to {result.folder}")


def _say_for_vllm(found: VllmReport, console: Console) -> None:
    if found.get("unmet"):
        console.print(f"vLLM would miss, as in the base: {', '.join(found['unmet'])}")
    if found.get("hf_overrides"):
        console.print(f"vLLM needs --hf-overrides '{json.dumps(found['hf_overrides'])}' for videos")
    if found.get("image_patch_row"):
        console.print(
            "vLLM leaves out the embedding of <im_patch>, of a length of "
            f"{found['image_patch_row']:.2g} here (usual: 1); pictures will look a bit different"
        )


def _convert(options: argparse.Namespace, console: Console) -> None:
    from molmo_tune.export.convert import convert_checkpoint

    made = convert_checkpoint(
        options.run,
        options.out,
        layout=options.layout or "hub",
        like=options.like,
        dtype=options.dtype,
    )
    console.print(
        f"{len(made.tensors.unchanged)} tensors, every bit as in the {made.source_layout} files"
    )
    _say_for_vllm(made.vllm, console)
    console.print(f"written to {made.folder}")


def _adapter(options: argparse.Namespace, console: Console) -> None:
    from molmo_tune.export.adapters.peft_adapter import export_peft_adapter

    made = export_peft_adapter(RunFolder(options.run), options.out)
    console.print(
        f"{made.num_modules} modules, bit for bit those of the run\nwritten to {made.folder}"
    )


def _vllm_adapter(options: argparse.Namespace, console: Console) -> None:
    from molmo_tune.export.adapters.vllm_adapter import export_vllm_adapter

    made = export_vllm_adapter(RunFolder(options.run), options.out)
    console.print(
        f"{made.num_modules} fused modules, each the update of its split ones\n"
        f"vLLM needs --enable-lora --max-lora-rank {made.max_lora_rank}"
    )
    _say_for_vllm({"hf_overrides": made.hf_overrides}, console)
    console.print(f"written to {made.folder}")
