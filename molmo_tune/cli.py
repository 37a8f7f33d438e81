"""The command `molmo-tune`: one verb per step of the work.

A verb is a module of `molmo_tune.commands` with its help text (`HELP`), its options
(`add_options`) and its handler (`run`). Those modules import what they need inside the handler, so
`--help` and the errors of a recipe do not wait for torch. Exit codes: 0 done, 1 a problem that the
user can fix (one clear message, no traceback), 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module

from molmo_tune import __version__
from molmo_tune.errors import UserError

VERBS = (
    *("demo", "init", "formats", "convert", "check", "preview", "plan", "train"),
    *("evaluate", "predict", "export", "push", "doctor", "recipes", "schema"),
)
"""In the order of the work; each is a module of `molmo_tune.commands`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    options = parser().parse_args(arguments)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    _silence_misleading_advice()
    try:
        return int(options.handler(options))
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130


def parser() -> argparse.ArgumentParser:
    """Return the parser with all verbs; each stores its ``run`` as `handler`."""
    top = argparse.ArgumentParser(
        prog="molmo-tune",
        description="Fine-tune Molmo 2 to point at, track and count your own objects.",
        epilog="Start with `molmo-tune demo`. Override a recipe key with --set KEY=VALUE.",
    )
    top.add_argument("--version", action="version", version=f"molmo-tune {__version__}")
    verbs = top.add_subparsers(required=True, metavar="VERB")
    for name in VERBS:
        command = import_module(f"molmo_tune.commands.{name}")
        verb = verbs.add_parser(name, help=command.HELP, description=command.HELP)
        command.add_options(verb)
        verb.set_defaults(handler=command.run)
    return top


def _silence_misleading_advice() -> None:
    """Silence library warnings about things that users cannot change.

    bitsandbytes advises installing CPU kernels from the Hub, which have no gradients; transformers
    and peft warn about each other's old names.
    """
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    warnings.filterwarnings(
        "ignore", category=FutureWarning, module=r"transformers\.modeling_utils"
    )


if __name__ == "__main__":
    sys.exit(main())
