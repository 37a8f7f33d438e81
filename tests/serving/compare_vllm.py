"""Comparison of exports in vLLM with the same exports in our own code.

    python -m tests.serving.compare_vllm PYTHON

PYTHON is the interpreter of an environment with vLLM (docs/serving.md). Small random checkpoints in
both released shapes get a random LoRA and are exported as `hub`, in FP8 and as `vllm-adapter`. vLLM
serves the first two, and the base with the third, and answers prompts with text, an image, two
images and a video. Compared are the token ids of the prompts, and the log-probabilities of the 20
most likely tokens at each of 8 steps of vLLM's own answer. Results:
`tests/benchmarks/results/vllm.json`.

The checkpoints differ from the fixtures where vLLM requires it: a head size of 64 (its CPU kernels
do not support 8), an `<im_patch>` embedding of zeros (vLLM overwrites it with image features, all
other code adds them), and remote code (`stand_in`), which the fixtures lack. Without a GPU, image
tokens in vLLM attend only causally; its answers are then compared with our model under that mask.

Limitations: no released weights, no load or speed, and no other quantized exports, whose layout
vLLM does not read.
"""

from __future__ import annotations

import datetime
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import AutoConfig, Molmo2ForConditionalGeneration

from molmo_tune.encoding.collation import collate
from molmo_tune.encoding.encoded import EncodedSample
from molmo_tune.encoding.sample_encoder import encode_prompt
from molmo_tune.encoding.vision_inputs import NO_VISION, image_inputs, video_inputs
from molmo_tune.export.adapters.vllm_adapter import export_vllm_adapter
from molmo_tune.export.export import export_run
from molmo_tune.export.layouts.hub_layout import to_hub
from molmo_tune.model.forward import hidden_states
from molmo_tune.model.loading import load_model, load_processor
from tests.conftest import SHARED
from tests.export_runs import make_run

HERE = Path(__file__).parent
RESULTS = HERE.parent / "benchmarks" / "results" / "vllm.json"
HEAD_DIM = 64
FPS = 2.0
QUESTION = "Point to the object."


def random_requests() -> dict[str, Any]:
    """Return random images by request, frames at the model's input size, and the question."""
    rng = np.random.default_rng(7)
    return {
        "question": QUESTION,
        "image.0": rng.integers(0, 256, (70, 130, 3), np.uint8),
        "two images.0": rng.integers(0, 256, (90, 60, 3), np.uint8),
        "two images.1": rng.integers(0, 256, (70, 130, 3), np.uint8),
        "frames": rng.integers(0, 256, (4, 378, 378, 3), np.uint8),
        "fps": FPS,
    }


def make_base(fixture: Path, folder: Path) -> None:
    """Write a random checkpoint in the hub layout that vLLM can run; see the module's docstring."""
    shutil.copytree(fixture, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    shutil.copytree(HERE / "stand_in", folder, dirs_exist_ok=True)
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["head_dim"] = HEAD_DIM
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    torch.manual_seed(3)
    native = AutoConfig.from_pretrained(fixture)
    native.text_config.head_dim = HEAD_DIM
    model = Molmo2ForConditionalGeneration(native).float()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.08)
    model.get_input_embeddings().weight.data[config["image_patch_id"]] = 0
    tensors = {name: t.contiguous() for name, t in to_hub(model.state_dict(), model.config).items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@dataclass(frozen=True, slots=True)
class Served:
    """A model for vLLM to serve, and its options."""

    name: str
    model: Path
    hf_overrides: dict[str, int]
    dtype: str = "float32"
    adapter: Path | None = None


def ask_vllm(python: str, served: Served, place: Path) -> dict[str, Any]:
    """Return the answers of vLLM; show its output if it fails."""
    answers = place / "answers.json"
    command = [python, HERE / "in_vllm.py", served.model, place / "requests.npz", answers]
    command += [json.dumps(served.hf_overrides), served.dtype]
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment |= {"HF_HUB_OFFLINE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    environment.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    done = subprocess.run(
        [str(word) for word in [*command, *([served.adapter] if served.adapter else [])]],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"vLLM failed:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(answers.read_text())
    return found


def compare(folder: Path, served: dict[str, Any], *, is_causal: bool) -> dict[str, Any]:
    """Return whether token ids match and the largest log-probability difference, by request."""
    model, processor = load_model(str(folder)).float().eval(), load_processor(str(folder))
    requests = random_requests()
    images = [requests[f"two images.{n}"] for n in range(2)]
    times_s = [n / FPS for n in range(len(requests["frames"]))]
    vision = {
        "text": NO_VISION,
        "image": image_inputs(processor, [requests["image.0"]]),
        "two images": image_inputs(processor, images),
        "video": video_inputs(processor, requests["frames"], times_s),
    }
    found = {}
    for name, inputs in vision.items():
        prompt = encode_prompt(processor, name, [QUESTION], inputs)
        theirs = served[name]
        same_ids = prompt.input_ids.tolist() == theirs["prompt_ids"]
        if not same_ids and prompt.input_ids[1:].tolist() == theirs["prompt_ids"]:
            prompt = _without_first(prompt)
            same_ids = "all but the first, BOS"
        diff = _largest_diff(model, _with_answer(prompt, theirs, is_causal), theirs)
        found[name] = {"same_ids": same_ids, "max_logprob_diff": diff}
    return found


def _without_first(prompt: EncodedSample) -> EncodedSample:
    names = ("input_ids", "target_ids", "loss_weights", "branch_ids", "example_ids", "is_vision")
    short = {name: getattr(prompt, name)[1:] for name in names}
    return replace(prompt, **short, position_ids=prompt.position_ids[:-1])


def _with_answer(prompt: EncodedSample, theirs: dict[str, Any], is_causal: bool) -> EncodedSample:
    """Return the prompt followed by all but the last token of the answer."""
    num_new = len(theirs["answer_ids"]) - 1

    def extend(values: Any) -> Any:
        return np.concatenate([values, np.repeat(values[-1:], num_new)])

    names = ("target_ids", "loss_weights", "branch_ids", "example_ids")
    is_vision = extend(prompt.is_vision)  # a prompt ends with text
    return replace(
        prompt,
        **{name: extend(getattr(prompt, name)) for name in names},
        input_ids=np.concatenate([prompt.input_ids, theirs["answer_ids"][:num_new]]),
        position_ids=np.arange(len(is_vision)),
        is_vision=np.zeros_like(is_vision) if is_causal else is_vision,
    )


@torch.no_grad()
def _largest_diff(model: Any, sample: EncodedSample, theirs: dict[str, Any]) -> float:
    logits = model.lm_head(hidden_states(model, collate([sample], pad_id=0)))[0]
    steps = logits[-len(theirs["logprobs"]) :].log_softmax(-1)
    return max(
        abs(value - float(ours[int(token)]))
        for ours, step in zip(steps, theirs["logprobs"], strict=True)
        for token, value in step.items()
    )


def main(python: str) -> None:
    """Run the comparison and write its results."""
    results: dict[str, Any] = {"date": datetime.date.today().isoformat()}
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        np.savez(place / "requests.npz", **random_requests())
        for variant in ("qwen", "olmo"):
            base = place / f"base_{variant}"
            make_base(SHARED / "fixtures" / f"molmo2-tiny-{variant}", base)
            run = make_run(place / f"run_{variant}", str(base))
            hub, quantized, adapter = (place / f"{n}_{variant}" for n in ("hub", "fp8", "adapter"))
            overrides = export_run(run, hub).report["vllm"]["hf_overrides"]
            export_run(run, quantized, quantize="fp8")
            export_vllm_adapter(run, adapter)
            for served in (
                Served("fp8 in bfloat16", quantized, overrides, "bfloat16"),
                Served("vllm-adapter", base, overrides, adapter=adapter),
                Served("hub, no overrides", hub, {}),
                Served("hub", hub, overrides),
            ):
                answers = ask_vllm(python, served, place)
                results |= answers.pop("about")
                is_causal = results["device"] == "cpu"
                found = compare(hub, answers, is_causal=is_causal)
                results[f"{variant}, {served.name}"] = found
                print(f"{variant}, {served.name}: {found}", flush=True)
            other = compare(base, answers, is_causal=is_causal)
            results[f"{variant}, hub against its base"] = other
            trained = compare(hub, answers, is_causal=False)
            results[f"{variant}, hub against the trained mask"] = trained
    text = json.dumps(results, indent=2) + "\n"
    RESULTS.write_text(text)
    print(text)


if __name__ == "__main__":
    main(sys.argv[1])
