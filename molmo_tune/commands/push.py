"""`molmo-tune push FOLDER OWNER/NAME [--dry-run] [--public]`."""

from __future__ import annotations

import argparse

from rich.console import Console

from molmo_tune.export.push import files_to_push, push, require_repository_name


def run(options: argparse.Namespace) -> int:
    """List what goes to the hub, and unless it is a dry run, send it."""
    console = Console(soft_wrap=True, markup=False, highlight=False)
    require_repository_name(options.repository)
    files = files_to_push(options.folder)
    for name, size in files:
        console.print(f"{size:>15,}  {name}", markup=False)
    total = sum(size for _, size in files)
    kind = "public" if options.public else "private"
    target = f"{options.repository} ({kind} if it is new)"
    if options.dry_run:
        console.print(f"dry run: {len(files)} files, {total:,} bytes would go to {target}")
        return 0
    console.print(f"{len(files)} files, {total:,} bytes go to {target}")
    console.print(f"pushed: {push(options.folder, options.repository, public=options.public)}")
    return 0
