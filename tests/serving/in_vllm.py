"""Answers of vLLM to the requests in a file, with token ids and log-probabilities.

    python in_vllm.py MODEL REQUESTS.npz ANSWERS.json HF_OVERRIDES DTYPE [ADAPTER]

`compare_vllm` runs this in vLLM's own environment. It does not import molmo-tune: the folder is
served as a user would serve it (`--trust-remote-code`), and text and images use the chat API.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

NUM_TOKENS, NUM_LOGPROBS = 8, 20
MAX_RANK = 320  # of an adapter


def main(
    model: str, requests: Path, answers: Path, overrides: str, dtype: str, adapter: str = ""
) -> None:
    """Answer all requests and write the answers."""
    from vllm import LLM, SamplingParams
    from vllm.lora.request import LoRARequest

    llm = LLM(
        model=model,
        trust_remote_code=True,
        hf_overrides=json.loads(overrides),
        dtype=dtype,
        max_model_len=2048,
        max_num_seqs=4,
        enforce_eager=True,
        limit_mm_per_prompt={"image": 2, "video": 1},
        enable_lora=bool(adapter),
        max_lora_rank=MAX_RANK if adapter else 16,
    )
    sampling = SamplingParams(temperature=0, max_tokens=NUM_TOKENS, logprobs=NUM_LOGPROBS)
    lora = LoRARequest("tuned", 1, adapter) if adapter else None
    found: dict[str, Any] = {}
    with np.load(requests) as arrays:
        question = str(arrays["question"])
        for name in ("text", "image", "two images"):
            images = [arrays[key] for key in sorted(arrays) if key.startswith(f"{name}.")]
            chat = llm.chat(_messages(question, images), sampling, lora_request=lora)
            found[name] = _record(chat[0])
        prompt = {
            "prompt": _video_prompt(llm, question),
            "multi_modal_data": {"video": [(arrays["frames"], _metadata(arrays))]},
        }
        found["video"] = _record(llm.generate(prompt, sampling, lora_request=lora)[0])
    found["about"] = _about()
    answers.write_text(json.dumps(found))


def _about() -> dict[str, Any]:
    import torch
    import transformers
    import vllm
    from vllm.platforms import current_platform

    versions = {m.__name__: m.__version__ for m in (vllm, transformers, torch)}
    return versions | {"device": current_platform.device_type}


def _messages(question: str, images: list[Any]) -> list[Any]:
    from PIL import Image

    content: list[dict[str, Any]] = [
        {"type": "image_pil", "image_pil": Image.fromarray(image)} for image in images
    ]
    return [{"role": "user", "content": [*content, {"type": "text", "text": question}]}]


def _video_prompt(llm: Any, question: str) -> str:
    content = [{"type": "video"}, {"type": "text", "text": question}]
    return str(
        llm.get_tokenizer().apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
    )


def _metadata(arrays: Any) -> dict[str, Any]:
    """Return metadata of frames that are already sampled at `fps`."""
    number, fps = len(arrays["frames"]), float(arrays["fps"])
    return {
        "fps": fps,
        "duration": number / fps,
        "total_num_frames": number,
        "frames_indices": list(range(number)),
        "do_sample_frames": False,
    }


def _record(output: Any) -> dict[str, Any]:
    answer = output.outputs[0]
    return {
        "prompt_ids": list(output.prompt_token_ids),
        "answer_ids": list(answer.token_ids),
        "logprobs": [{str(t): lp.logprob for t, lp in step.items()} for step in answer.logprobs],
    }


if __name__ == "__main__":
    model, requests, answers, *rest = sys.argv[1:]
    main(model, Path(requests), Path(answers), *rest)
