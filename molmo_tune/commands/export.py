"""`molmo-tune export RUN --out FOLDER`."""

from __future__ import annotations

import argparse

from rich.console import Console

from molmo_tune.export.export import export_run
from molmo_tune.run_folder import RunFolder


def run(options: argparse.Namespace) -> int:
    """Export and print the proof."""
    result = export_run(RunFolder(options.run), options.out, dtype=options.dtype)
    console = Console(soft_wrap=True)
    account, proof = result.account, result.proof
    console.print(
        f"{len(account.merged)} tensors merged, {len(account.unchanged)} unchanged\n"
        f"logits differ from the run's by at most {proof.max_logit_diff:.1e}"
        + (f" (rounding to 16 bits: {proof.rounding_diff:.1e})" if proof.rounding_diff else "")
        + f"\n{proof.equal_answers} of {len(proof.answers)} probe answers equal\n"
        f"written to {result.folder}",
        highlight=False,
    )
    return 0
