"""The command `molmo-tune`: one verb per step of the work, thin handlers, nothing heavy at the top.

Handlers are imported only when their verb was asked for, so `--help` and a recipe's faults do not
wait for torch. Exit codes: 0 done, 1 something of the user's must be changed (one clear message, no
traceback), 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from molmo_tune import __version__
from molmo_tune.errors import UserError

_VERBS = {
    "demo": "fine-tune the bundled tiny Molmo 2 on a small video data set, start to end, on a CPU",
    "init": "look at a folder of labels and write a recipe and a template for it",
    "formats": "list the label formats that are read, or tell what is read of one",
    "convert": "read a tool's label file and write it as our JSONL, with a report",
    "check": "find what is wrong with a recipe, its labels and media before training",
    "preview": "write an HTML page of what the model will see and be taught",
    "plan": "forecast the GPU memory that training will take, without GPU and weights",
    "train": "fine-tune as a recipe says",
    "evaluate": "ask a run (or its base) the validation questions and score the answers",
    "predict": "ask a run or a checkpoint about images and videos, and draw what it points at",
    "export": "merge a run into a checkpoint that serves, and prove it; or convert a checkpoint",
    "push": "upload an export to the Hugging Face hub; --dry-run shows what would go",
    "doctor": "try whether this machine is ready, and say what to do where it is not",
    "recipes": "list the bundled recipes and data templates, or copy one to edit",
    "schema": "print the JSON schema of a recipe, for editors",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = _parser().parse_args(arguments)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    _silence_advice_that_misleads()
    try:
        handler = import_module(f"molmo_tune.commands.{options.verb}")
        return int(handler.run(options))
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130


def _silence_advice_that_misleads() -> None:
    """Libraries telling users about what only we could change.

    bitsandbytes advises to install CPU kernels from a hub, which have no gradients; transformers
    and peft warn of each other's old names.
    """
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    warnings.filterwarnings(
        "ignore", category=FutureWarning, module=r"transformers\.modeling_utils"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="molmo-tune",
        description="Fine-tune Molmo 2 to point at, track and count your own objects.",
        epilog="Start with `molmo-tune demo`. Change a recipe's settings with --set KEY=VALUE.",
    )
    parser.add_argument("--version", action="version", version=f"molmo-tune {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    made = {
        name: verbs.add_parser(name, help=text, description=text) for name, text in _VERBS.items()
    }
    _add_data_verbs(made)
    _add_run_verbs(made)
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _rate(text: str) -> float:
    number = float(text)
    if not 0 < number < 1000:
        raise ValueError(text)
    return number


def _gigabytes(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise ValueError(text)
    return number


def _add_data_verbs(made: dict[str, argparse.ArgumentParser]) -> None:
    init = made["init"]
    init.add_argument("folder", type=Path, help="folder with labels and their media")
    init.add_argument("--labels", metavar="FORMAT", help="label format, where there are several")
    init.add_argument("--template", metavar="NAME", help="bundled data template, for another task")
    init.add_argument("--to", type=Path, default=Path(), help="folder to write into")
    init.add_argument("--model", default="allenai/Molmo2-4B", help="hub id, folder, or tiny")
    made["formats"].add_argument("name", nargs="?", metavar="NAME", help="a format of the list")
    convert = made["convert"]
    convert.add_argument("labels", type=Path, help="label file, or folder of label files")
    convert.add_argument("--format", help="label format; found out when left away")
    convert.add_argument("--media", type=Path, help="media file, or folder of the media")
    convert.add_argument("--out", type=Path, required=True, help="JSONL file to write")
    convert.add_argument(
        "--allow-lossy", action="store_true", help="write the file although annotations were lost"
    )
    convert.add_argument(
        "--columns", help="of a plain table: 'image: COLUMN, label: COLUMN, box: …'"
    )
    convert.add_argument("--units", choices=("pixel", "percent", "unit"), help="of a plain table")
    convert.add_argument("--box", choices=("xyxy", "xywh", "cxcywh"), default="xyxy")
    for verb in ("check", "preview", "plan", "train"):
        _add_recipe(made[verb])
    made["check"].add_argument(
        "--media", action="store_true", help="decode every medium, as training will"
    )
    made["preview"].add_argument("--out", type=Path, default=Path("preview.html"))
    made["preview"].add_argument(
        "--samples", type=_positive, default=50, help="at most so many samples"
    )
    made["plan"].add_argument(
        "--memory", type=_gigabytes, metavar="GB", help="of the card it shall fit, e.g. 24"
    )
    made["plan"].add_argument("--json", type=Path, metavar="FILE", help="write the figures, too")
    made["train"].add_argument(
        "--resume", action="store_true", help="continue from the run's last checkpoint"
    )
    recipes = made["recipes"]
    recipes.add_argument("copy", nargs="?", metavar="NAME", help="recipe or template to copy")
    recipes.add_argument("--to", type=Path, default=Path(), help="folder to copy into")


def _add_run_verbs(made: dict[str, argparse.ArgumentParser]) -> None:
    evaluate = made["evaluate"]
    evaluate.add_argument("run", type=Path, help="folder of a run")
    evaluate.add_argument("--base", action="store_true", help="the base model, without the adapter")
    evaluate.add_argument("--model", help="another checkpoint, such as an export")
    evaluate.add_argument("--name", help="name of the result; after or before when left away")
    predict = made["predict"]
    predict.add_argument("model", help="folder of a run, checkpoint folder, hub id, or tiny")
    predict.add_argument("media", type=Path, nargs="+", help="images, videos, folders of frames")
    predict.add_argument("--ask", action="append", required=True, help="may be repeated")
    predict.add_argument("--together", action="store_true", help="all images in one question")
    predict.add_argument("--out", type=Path, help="folder for answers.json, .html, labels.jsonl")
    predict.add_argument("--max-frames", type=_positive, help="cap on frames of a video")
    predict.add_argument("--max-fps", type=_rate, help="cap on frames per second")
    predict.add_argument("--max-new-tokens", type=_positive, help="longest answer")
    export = made["export"]
    export.add_argument("run", type=Path, help="folder of a run, or of a checkpoint to convert")
    export.add_argument("--out", type=Path, required=True, help="folder of the new checkpoint")
    export.add_argument("--dtype", choices=("base", "float32", "bfloat16"))
    export.add_argument(
        "--layout",
        choices=("hub", "native", "ai2", "adapter", "vllm-adapter"),
        help="a merged checkpoint as released (hub, the default), as transformers names it or as "
        "Ai2's trainer loads it; the PEFT adapter; or that adapter as vLLM serves it",
    )
    export.add_argument(
        "--quantize",
        choices=("nf4", "int8", "w4a16", "fp8"),
        help="decoder in 4 or 8 bits: nf4 and int8 for bitsandbytes, w4a16 for compressed-tensors "
        "(layout native), fp8 for compressed-tensors (layout hub)",
    )
    export.add_argument("--like", help="checkpoint whose config.json and processor are taken")
    push = made["push"]
    push.add_argument("folder", type=Path, help="folder of an export")
    push.add_argument("repository", metavar="OWNER/NAME", help="made when it does not exist")
    push.add_argument("--dry-run", action="store_true", help="list the files and stop")
    push.add_argument("--public", action="store_true", help="if the repository is new")
    demo = made["demo"]
    demo.add_argument("--out", type=Path, default=Path("demo_out"), help="folder of all results")
    demo.add_argument("--seed", type=int, default=7)


def _add_recipe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", help="recipe file, or the name of a bundled recipe")
    parser.add_argument(
        "--set",
        dest="overrides",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="change a setting, e.g. --set optim.lr=2e-4; may be repeated",
    )


if __name__ == "__main__":
    sys.exit(main())
