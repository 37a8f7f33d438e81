"""`molmo-tune export RUN --out FOLDER [--layout hub|vllm-adapter]`."""

from __future__ import annotations

import argparse

from rich.console import Console

from molmo_tune.errors import UserError
from molmo_tune.run_folder import RunFolder


def run(options: argparse.Namespace) -> int:
    """Export and print the proof."""
    console = Console(soft_wrap=True)
    if options.layout == "vllm-adapter":
        _adapter(options, console)
    else:
        _checkpoint(options, console)
    return 0


def _checkpoint(options: argparse.Namespace, console: Console) -> None:
    from molmo_tune.export.export import export_run

    result = export_run(RunFolder(options.run), options.out, dtype=options.dtype)
    account, proof = result.account, result.proof
    console.print(
        f"{len(account.merged)} tensors merged, {len(account.unchanged)} unchanged\n"
        f"logits differ from the run's by at most {proof.max_logit_diff:.1e}"
        + (f" (rounding to 16 bits: {proof.rounding_diff:.1e})" if proof.rounding_diff else "")
        + f"\n{proof.equal_answers} of {len(proof.answers)} probe answers equal\n"
        f"written to {result.folder}",
        highlight=False,
    )


def _adapter(options: argparse.Namespace, console: Console) -> None:
    from molmo_tune.export.vllm_adapter import export_vllm_adapter

    if options.dtype:
        raise UserError(
            "--dtype", f"{options.dtype} with --layout vllm-adapter", "none: it is kept"
        )
    made = export_vllm_adapter(RunFolder(options.run), options.out)
    console.print(
        f"{made.num_modules} fused modules, each the update of its split ones\n"
        f"vLLM needs --enable-lora --max-lora-rank {made.max_lora_rank}\nwritten to {made.folder}",
        highlight=False,
    )
