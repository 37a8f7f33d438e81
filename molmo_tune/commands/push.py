"""`molmo-tune push FOLDER OWNER/NAME [--dry-run] [--public]`: an export to the Hugging Face Hub."""

from __future__ import annotations

import argparse
from pathlib import Path

from molmo_tune.commands.console import new_console

HELP = "upload an export to the Hugging Face Hub; --dry-run lists the files"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the export and the repository."""
    parser.add_argument("folder", type=Path, help="export folder")
    parser.add_argument(
        "repository", metavar="OWNER/NAME", help="repository; created if it does not exist"
    )
    parser.add_argument("--dry-run", action="store_true", help="list the files and stop")
    parser.add_argument(
        "--public", action="store_true", help="make a new repository public (default: private)"
    )


def run(options: argparse.Namespace) -> int:
    """List the files and, unless it is a dry run, upload them."""
    from molmo_tune.export.push import files_to_push, push, require_repository_name

    console = new_console()
    require_repository_name(options.repository)
    files = files_to_push(options.folder)
    for name, size in files:
        console.print(f"{size:>15,}  {name}")
    total = sum(size for _, size in files)
    visibility = "public" if options.public else "private"
    target = f"{options.repository} ({visibility} if new)"
    if options.dry_run:
        console.print(f"dry run: {len(files)} files, {total:,} bytes for {target}")
        return 0
    console.print(f"uploading {len(files)} files, {total:,} bytes to {target}")
    console.print(f"pushed: {push(options.folder, options.repository, public=options.public)}")
    return 0
