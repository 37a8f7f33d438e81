"""`molmo-tune export RUN --out FOLDER [--layout …]`: also for a checkpoint folder instead of a run.

A run is merged and verified, and with `--quantize` then quantized. A folder with weights and no
recipe is converted to another layout, bit-identical (`--like` names a checkpoint with the same
configuration, if the folder has none).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from molmo_tune.choices import (
    AdapterLayout,
    ExportDtype,
    ExportLayout,
    ExportQuantization,
    words_of,
)
from molmo_tune.commands.console import new_console
from molmo_tune.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from molmo_tune.export.report import QuantizationReport, VllmReport

HELP = "merge a run into a servable checkpoint and verify it, or convert a checkpoint"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the run, the folder and the kind of export."""
    parser.add_argument("run", type=Path, help="run folder, or checkpoint folder to convert")
    parser.add_argument("--out", type=Path, required=True, help="new folder for the checkpoint")
    parser.add_argument(
        "--dtype",
        choices=words_of(ExportDtype),
        help="dtype of the weights; base: that of the base (default: the recipe's export.dtype)",
    )
    parser.add_argument(
        "--layout",
        choices=words_of(ExportLayout),
        help="merged checkpoint: released (hub, default), Transformers (native) or Ai2 (ai2); "
        "or adapter: PEFT (adapter) or vLLM (vllm-adapter)",
    )
    parser.add_argument(
        "--quantize",
        choices=words_of(ExportQuantization),
        help="4-bit or 8-bit decoder: bitsandbytes (nf4, int8) or compressed-tensors (w4a16, fp8); "
        "sets --layout hub for fp8, native for the others",
    )
    parser.add_argument(
        "--like", metavar="NAME", help="checkpoint to take config.json and the processor from"
    )


def run(options: argparse.Namespace) -> int:
    """Export and print what was verified."""
    console = new_console()
    is_run = _is_run(options)
    if options.layout in words_of(AdapterLayout):
        _refuse(options, "dtype", "like", "quantize")
        export_adapter = _peft_adapter if options.layout == "adapter" else _vllm_adapter
        export_adapter(options, console)
    elif is_run or not _has_weights(options):
        _refuse(options, "like")
        _export_run(options, console)
    else:
        _refuse(options, "quantize")
        _convert(options, console)
    return 0


def _is_run(options: argparse.Namespace) -> bool:
    from molmo_tune.run_folder import RunFolder

    return RunFolder(options.run).recipe.is_file()


def _refuse(options: argparse.Namespace, *names: str) -> None:
    """Raise `UserError` for options that have no meaning here."""
    source = "a run" if _is_run(options) else "a checkpoint"
    layout = f" and --layout {options.layout}" if options.layout else ""
    for name in names:
        value = getattr(options, name)
        if value:
            raise UserError(f"--{name}", f"{value} with {source}{layout}", "none", "omit it")


def _has_weights(options: argparse.Namespace) -> bool:
    from molmo_tune.export.files.checkpoint import weight_files

    return options.run.is_dir() and any(options.run.iterdir()) and bool(weight_files(options.run))


def _export_run(options: argparse.Namespace, console: Console) -> None:
    from molmo_tune.export.export import export_run
    from molmo_tune.run_folder import RunFolder

    result = export_run(
        RunFolder(options.run),
        options.out,
        layout=options.layout,
        dtype=options.dtype,
        quantize=options.quantize,
    )
    tensors, verified = result.tensors, result.verification
    if result.found:
        files = "file was" if len(result.found) == 1 else "files were"
        console.print(f"resumed a killed export: {len(result.found)} {files} complete")
    num_unchanged = len(tensors.unchanged_trained)
    unchanged = f", {num_unchanged} trained but unchanged" if num_unchanged else ""
    rounding = verified.rounding_diff
    console.print(
        f"{len(tensors.merged)} tensors merged, {len(tensors.unchanged)} not trained{unchanged}\n"
        f"logits differ from the run's by at most {verified.max_logit_diff:.1e}"
        + (f" (16-bit rounding: {rounding:.1e})" if rounding else "")
        + f"\n{verified.equal_answers} of {len(verified.answers)} probe answers equal"
    )
    if options.quantize:
        _print_quantized(options.quantize, result.report["quantized"], console)
    _print_vllm_notes(result.report.get("vllm", {}), console)
    console.print(f"wrote {result.folder}")


def _print_quantized(kind: str, report: QuantizationReport, console: Console) -> None:
    console.print(
        f"{kind}: reloaded; logits match the merged model quantized in memory\n"
        f"they differ from the unquantized ones by at most {report['max_logit_diff']:.2g}, "
        f"{report['mean_logit_diff']:.2g} on average; "
        f"{report['equal_answers']} of {len(report['answers'])} probe answers equal"
    )


def _print_vllm_notes(found: VllmReport, console: Console) -> None:
    if found.get("unmet"):
        console.print(f"missing for vLLM, as in the base: {', '.join(found['unmet'])}")
    if found.get("hf_overrides"):
        console.print(f"vLLM needs --hf-overrides '{json.dumps(found['hf_overrides'])}' for videos")
    if found.get("image_patch_row"):
        console.print(
            "vLLM ignores the <im_patch> embedding, with norm "
            f"{found['image_patch_row']:.2g} here (usual: 1); its answers about images may differ"
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
        f"{len(made.tensors.unchanged)} tensors, bit-identical to the {made.source_layout} files"
    )
    _print_vllm_notes(made.vllm, console)
    console.print(f"wrote {made.folder}")


def _peft_adapter(options: argparse.Namespace, console: Console) -> None:
    from molmo_tune.export.adapters.peft_adapter import export_peft_adapter
    from molmo_tune.run_folder import RunFolder

    made = export_peft_adapter(RunFolder(options.run), options.out)
    console.print(f"{made.num_modules} modules, bit-identical to the run's\nwrote {made.folder}")


def _vllm_adapter(options: argparse.Namespace, console: Console) -> None:
    from molmo_tune.export.adapters.vllm_adapter import export_vllm_adapter
    from molmo_tune.run_folder import RunFolder

    made = export_vllm_adapter(RunFolder(options.run), options.out)
    console.print(
        f"{made.num_modules} fused modules, each with the exact update of its split modules\n"
        f"vLLM needs --enable-lora --max-lora-rank {made.max_lora_rank}"
    )
    _print_vllm_notes({"hf_overrides": made.hf_overrides}, console)
    console.print(f"wrote {made.folder}")
