"""Preference training: pairs from mistakes, their loss compared with TRL's, and whole runs."""

from __future__ import annotations

import itertools
import json
import math
import shutil
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from molmo_tune.checks.recipe_data import check_recipe
from molmo_tune.cli import main
from molmo_tune.encoding.collation import collate
from molmo_tune.encoding.datasets import TrainingSet
from molmo_tune.encoding.encoded import Batch, Opening
from molmo_tune.encoding.items import Item
from molmo_tune.encoding.sample_encoder import encode_conversation, encode_prompt, encode_tree
from molmo_tune.encoding.sources import limits_of, read_items
from molmo_tune.encoding.vision_inputs import image_inputs, video_inputs
from molmo_tune.errors import UserError
from molmo_tune.evaluation.generation import Answer, generate_answers
from molmo_tune.evaluation.rewards import GroundingReward, reward
from molmo_tune.export.export import export_run
from molmo_tune.model.adapters import (
    add_adapter,
    bare_model,
    keep_start,
    load_adapter,
    save_adapter,
    trainable_parameters,
)
from molmo_tune.model.answer_log_probs import answer_log_probs
from molmo_tune.model.forward import hidden_states
from molmo_tune.model.loading import load_model, load_processor
from molmo_tune.model.preference_loss import pair_losses
from molmo_tune.model.resume_adapter import continue_adapter
from molmo_tune.preference import mining
from molmo_tune.preference.mining import MiningSettings, mine
from molmo_tune.preference.pair_set import PairBatch, PairSet, collate_pairs
from molmo_tune.preference.pair_trees import pair_trees
from molmo_tune.preference.pairs import REASONS, Mined, Pair, SampledAnswer, better_and_worse
from molmo_tune.preference.pairs_file import read_pairs, write_pairs
from molmo_tune.recipe.issues import RecipeError
from molmo_tune.recipe.loader import load_recipe, parse_recipe
from molmo_tune.recipe.sections import Recipe
from molmo_tune.run_folder import RunFolder
from molmo_tune.training.molmo_module import MolmoModule
from molmo_tune.training.optimizers import OptimSettings
from molmo_tune.training.preference import run_preference
from molmo_tune.training.preference.preference_module import PreferenceModule
from molmo_tune.training.run import train
from tests.drawn_lora import draw, drawn_lora
from tests.stopped_training import stopping_after
from tests.test_training import read_metrics, worst_difference
from tests.tiers import slow_except

QUIET = Console(quiet=True)
SETTINGS = OptimSettings(lr=1e-3, max_steps=1, part_lr={}, warmup_steps=0, schedule="constant")
QUESTION = "Point to the koi."
CHOSEN = '<points coords="0.0 1 100 200">koi</points>'
REJECTED = '<points coords="0.5 1 871 12 2 100 200">koi</points>'
PREFERENCE = ["adapter.dropout=0", "eval.max_new_tokens=48"]


# --- the loss ------------------------------------------------------------------------------------


def trl_loss(
    per_token: torch.Tensor, mask: torch.Tensor, reference: torch.Tensor, losses: dict[str, float]
) -> torch.Tensor:
    """TRL's own `DPOTrainer._compute_loss` on given log-probabilities of tokens.

    Args:
        per_token: ``(2Q, L - 1)``, first all chosen answers, then all rejected; 0 outside them.
        mask: ``(2Q, L)`` tokens of answers.
        reference: ``(Q, 2)``.
        losses: TRL's names and their weights.
    """
    trainer = pytest.importorskip("trl.trainer.dpo_trainer", reason="TRL is not installed")
    of_tokens = {"entropy": per_token, "mean_logits": per_token, "is_top1": per_token > 0}
    model = SimpleNamespace(training=True)
    itself = SimpleNamespace(gather=lambda x: x, gather_for_metrics=lambda x: x, device="cpu")
    bare = SimpleNamespace(
        model=model,
        accelerator=itself,
        aux_loss_enabled=False,
        ld_alpha=None,
        precompute_ref_logps=True,
        f_divergence_type="reverse_kl",
        loss_types=list(losses),
        loss_weights=list(losses.values()),
        beta=0.3,
        label_smoothing=0.0,
        use_weighting=False,
        _metrics={"train": defaultdict(list)},
        _total_train_tokens=0,
        _tp_size=1,
    )
    inputs = {
        "input_ids": torch.ones_like(mask),
        "attention_mask": torch.ones_like(mask),
        "completion_mask": mask,
        "ref_chosen_logps": reference[:, 0],
        "ref_rejected_logps": reference[:, 1],
    }

    def forward(**_: Any) -> Any:
        return SimpleNamespace(log_probs=per_token, **of_tokens)

    loss: torch.Tensor = trainer.DPOTrainer._compute_loss(
        bare, _Called(forward), inputs, return_outputs=False
    )
    return loss


class _Called:
    def __init__(self, function: Any) -> None:
        self._function = function

    def __call__(self, **options: Any) -> Any:
        return self._function(**options)


@pytest.mark.parametrize("supervised_weight", [0.0, 0.7])
def test_loss_and_gradients_match_trl(supervised_weight: float) -> None:
    """Five pairs, one by one, because TRL's supervised term is a mean over all tokens."""
    random = torch.Generator().manual_seed(0)
    raw = torch.randn(10, 12, generator=random, dtype=torch.float64)
    lengths = torch.randint(1, 11, (10,), generator=random)
    mask = (torch.arange(13)[None] > 12 - lengths[:, None]).long()
    reference = -5 * torch.rand(5, 2, generator=random, dtype=torch.float64)
    found = []
    for is_trl in (True, False):
        leaf = raw.clone().requires_grad_(True)
        per_token = -leaf.exp() * mask[:, 1:]
        if is_trl:
            losses = {"sigmoid": 1.0} | ({"sft": supervised_weight} if supervised_weight else {})
            of_each = [
                trl_loss(per_token[[q, q + 5]], mask[[q, q + 5]], reference[[q]], losses)
                for q in range(5)
            ]
            loss = torch.stack(of_each).mean()
        else:
            sums = per_token.sum(1).view(2, 5).T
            options = {"beta": 0.3, "supervised_weight": supervised_weight}
            loss = pair_losses(sums, reference, mask.sum(1)[:5], **options).total.mean()
        loss.backward()
        found.append((loss.detach(), leaf.grad))
    (theirs, their_gradient), (ours, our_gradient) = found
    assert float((ours - theirs).abs()) < 1e-6
    assert float((our_gradient - their_gradient).abs().max()) < 1e-6
    assert float(our_gradient.abs().max()) > 1e-3


def test_trl_collator_still_puts_a_token_before_the_answer() -> None:
    """Why TRL's trainer is not used; if this fails, check whether it works now."""
    trainer = pytest.importorskip("trl.trainer.dpo_trainer", reason="TRL is not installed")
    processor = load_processor("tiny")
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    answers = {"chosen": "yes", "rejected": "no"}
    example: dict[str, Any] = {
        name: [{"role": "assistant", "content": text}] for name, text in answers.items()
    }
    example |= {"images": [Image.fromarray(pixels)]}
    example |= {"prompt": [{"role": "user", "content": QUESTION}]}
    batch = trainer.DataCollatorForVisionPreference(processor)([example])
    theirs = batch["input_ids"][0].tolist()
    vision = image_inputs(processor, [pixels])
    ours = encode_conversation(processor, "", [QUESTION, "yes"], vision).input_ids.tolist()
    answer = processor.tokenizer.encode("yes", add_special_tokens=False)
    prompt = ours[: -len(answer)]
    assert ours == [*prompt, *answer]  # the end token after it is a target, not an input
    assert theirs == [*prompt, processor.tokenizer.eos_token_id, *answer]
    assert int(batch["completion_mask"][0].sum()) == 1 + len(answer)


def test_loss_of_the_reference_is_ln_2() -> None:
    log_probs = torch.randn(4, 2)
    options = {"beta": 0.1, "supervised_weight": 0.0}
    losses = pair_losses(log_probs, log_probs, torch.ones(4), **options)
    assert losses.total.tolist() == pytest.approx([math.log(2)] * 4)


@pytest.mark.parametrize(
    "name", slow_except(["tiny", "molmo2-tiny-qwen", "molmo2-tiny-olmo"], "tiny")
)
@pytest.mark.parametrize("kind", ["video", "image"])
def test_answers_in_a_tree_are_as_likely_as_alone(
    name: str, kind: str, request: pytest.FixtureRequest
) -> None:
    """Two pairs about one image or video, compared with four sequences and their full logits."""
    if name != "tiny":
        folder = request.getfixturevalue("shared") / "fixtures" / name
        if not folder.is_dir():
            pytest.skip(f"no {folder}")
        name = str(folder)
    processor, model = load_processor(name), load_model(name)
    frames = np.random.default_rng(0).integers(0, 256, (3, 60, 80, 3), np.uint8)
    vision = (
        video_inputs(processor, frames, [0.0, 0.5, 1.0])
        if kind == "video"
        else image_inputs(processor, [frames[0]])
    )
    branches = [(QUESTION, CHOSEN), (QUESTION, REJECTED), ("How many?", "2"), ("How many?", "None")]
    alone = [encode_conversation(processor, "", messages, vision) for messages in branches]
    tree = encode_tree(processor, "", branches, vision)
    with torch.no_grad():
        batch = collate([tree, alone[0]], pad_id=0)
        hidden = hidden_states(model, batch)
        found = answer_log_probs(hidden[:1], model.lm_head.weight, collate([tree], pad_id=0))
        wanted = torch.stack([whole_log_prob(model, collate([one], pad_id=0)) for one in alone])
    assert found.num_tokens.tolist() == [one.num_supervised for one in alone]
    differences = (found.sums - wanted).abs()
    resolution = 2 * torch.finfo(torch.float32).eps * wanted.abs()  # 7e-5 at -300 nats
    assert bool((differences < resolution.clamp(min=3e-5)).all())
    assert float((differences / found.num_tokens).max()) < 1e-5


def whole_log_prob(model: Any, batch: Batch) -> torch.Tensor:
    rows = model.lm_head(hidden_states(model, batch)).double().log_softmax(-1)
    answered = batch.loss_weights > 0
    return rows[answered].gather(-1, batch.target_ids[answered][:, None]).sum()


def test_log_probs_over_rows_and_chunks() -> None:
    """Two trees in two rows; the head gets three positions at a time."""
    processor, model = load_processor("tiny"), load_model("tiny")
    trees = [
        encode_tree(processor, "", [(QUESTION, CHOSEN), (QUESTION, REJECTED)]),
        encode_tree(processor, "", [("A?", "b"), ("A?", "c d"), ("E?", "f"), ("E?", "g h i")]),
    ]
    with torch.no_grad():
        batch = collate(trees, pad_id=0)
        hidden = hidden_states(model, batch)
        whole = answer_log_probs(hidden, model.lm_head.weight, batch)
        parts = answer_log_probs(hidden, model.lm_head.weight, batch, chunk=3)
        apart = [
            answer_log_probs(hidden[[n]], model.lm_head.weight, collate_row(batch, n)).sums
            for n in range(2)
        ]
    assert len(whole.sums) == 6
    assert torch.allclose(whole.sums, parts.sums, atol=1e-5)
    assert torch.allclose(whole.sums, torch.cat(apart), atol=1e-5)


def collate_row(batch: Batch, row: int) -> Batch:
    named = {name: getattr(batch, name)[[row]] for name in ("input_ids", "target_ids")}
    named |= {name: getattr(batch, name)[[row]] for name in ("loss_weights", "branch_ids")}
    return replace(batch, **named)


def test_answers_are_sampled_from_the_full_distribution() -> None:
    """By the seed, without temperature or top-50 (transformers' default)."""
    processor, model = load_processor("tiny"), load_model("tiny")
    model.lm_head.weight.data *= 0.15  # the tiny base is too certain for this test
    prompt = encode_prompt(processor, "", [QUESTION])
    with torch.no_grad():
        last = hidden_states(model, collate([prompt], pad_id=0))[0, -1]
        shares = model.lm_head(last).softmax(-1).tolist()
    of_text: Counter[str] = Counter()  # special tokens decode to an empty text
    for token, share in enumerate(shares):
        of_text[processor.tokenizer.decode([token], skip_special_tokens=True)] += share
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(
            generate_answers(model, processor, [prompt] * 500, max_new_tokens=1, is_sampled=True)
        )
    assert found[0] == found[1] != found[2]
    drawn = Counter(answer.text for answers in found[1:] for answer in answers)
    in_order = [text for text, _ in of_text.most_common()]
    for group in (in_order[:1], in_order[1:50], in_order[50:]):
        wanted = sum(of_text[text] for text in group)
        assert wanted > 0.1
        assert sum(drawn[text] for text in group) / 1000 == pytest.approx(wanted, abs=0.06)
    (greedy,) = generate_answers(model, processor, [prompt], max_new_tokens=1)
    assert greedy.text == processor.tokenizer.decode([int(np.argmax(shares))])


# --- from answers to pairs -----------------------------------------------------------------------

ANSWER_PAIRS = [
    # first, second, verdict
    (("good", 0.9, False), ("bad", 0.1, False), ("good", "bad")),
    (("bad", 0.1, False), ("good", 0.9, False), ("good", "bad")),
    (("half", 0.5, False), ("less", 0.25, False), ("half", "less")),  # exactly the gap
    (("half", 0.5, False), ("less", 0.26, False), "alike"),
    (("a", 1.0, False), ("b", 1.0, False), "alike"),
    (("a", 0.0, False), ("b", 0.0, False), "alike"),
    (("good", 1.0, False), ("bad", 0.0, True), "cut"),
    (("good", 1.0, True), ("bad", 0.0, False), "cut"),
    (("a", 0.0, True), ("b", 0.0, False), "cut"),
]


@pytest.mark.parametrize(("first", "second", "verdict"), ANSWER_PAIRS)
def test_two_answers_make_a_pair_or_have_a_reason(first: Any, second: Any, verdict: Any) -> None:
    found = better_and_worse(SampledAnswer(*first), SampledAnswer(*second), min_f1_gap=0.25)
    if not isinstance(found, str):
        found = tuple(drawn.text for drawn in found)
    assert found == verdict


def mining_settings(**changed: Any) -> MiningSettings:
    settings = MiningSettings(0.2, 1, max_tokens=1024, max_new_tokens=8, batch_size=2, seed=7)
    return replace(settings, **changed)


@pytest.fixture
def items(pond_recipe: Path) -> list[Item]:
    recipe = load_recipe(pond_recipe)
    found, _ = read_items(recipe.data.train, recipe, load_processor("tiny"))
    return found


def of_task(item: Item, task: str) -> Item:
    return replace(item, template=item.template.model_copy(update={"task": task}))


def answer_with(monkeypatch: pytest.MonkeyPatch, said: list[str], right: dict[str, str]) -> None:
    """Let generation return these answers in turn; "right" becomes that question's right answer.

    Other tests use real generation.
    """
    turns = itertools.cycle(said)
    tokenizer = load_processor("tiny").tokenizer

    def answer(prompt: Any) -> Answer:
        text = next(turns)
        asked = tokenizer.decode(prompt.input_ids.tolist())
        known = [answer for question, answer in right.items() if question in asked]
        return Answer(known[0] if text == "right" else text, text == "cut")

    def say(_model: Any, _processor: Any, prompts: Sequence[Any], **options: Any) -> list[Answer]:
        assert options["is_sampled"]
        return [answer(prompt) for prompt in prompts]

    monkeypatch.setattr(mining, "generate_answers", say)


class FakeModel:
    """Has only a mode; `answer_with` provides the answers."""

    training = True

    def eval(self) -> None:
        self.training = False

    def train(self, mode: bool) -> None:
        self.training = mode


@pytest.mark.parametrize("pairs_per_question", [1, 3])
def test_every_answer_pair_is_used_or_has_a_reason(
    pairs_per_question: int, items: list[Item], pond_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Right, wrong, truncated and marked answers; three items cannot be asked about."""
    processor, limits = load_processor("tiny"), limits_of(load_recipe(pond_recipe))
    gone = Path("gone.mp4")
    media = replace(items[0].sample.media, paths=(gone,))
    bad = replace(items[0], sample=replace(items[0].sample, media=media))
    captions = of_task(items[1], "captions")
    text = replace(items[1], sample=replace(items[1].sample, media=replace(media, paths=())))
    given = [bad, captions, text, *items[1:]]
    right = {one.question: one.answer for item in given for one in item.conversations}
    said = ["There are none.", "right", "right", "cut", "There are none.", "marked <im_patch>"]
    answer_with(monkeypatch, [*said, "right", "right"], right)
    model = FakeModel()
    settings = mining_settings(max_questions=7, pairs_per_question=pairs_per_question)
    before = torch.get_rng_state()
    mined, refused = mine(model, processor, given, limits, settings)
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training
    assert mined.num_answer_pairs == pairs_per_question * sum(
        len(item.conversations) for item in given
    )
    assert {"not asked", "no medium", "not scored", "medium does not open"} < set(mined.unused)
    assert list(mined.unused) == [name for name in REASONS if name in mined.unused]
    assert [one.bad_medium for one in refused] == [str(gone)]
    asked = ("cut", "alike", "special token")
    assert (
        len(mined.pairs) + sum(mined.unused.get(name, 0) for name in asked)
        == 7 * pairs_per_question
    )
    assert mined.pairs
    for pair in mined.pairs:
        question = given[pair.item].conversations[pair.question]
        assert (pair.asked, pair.chosen) == question.messages
        assert (pair.rejected, pair.rejected_f1) == ("There are none.", 0.0)
        assert pair.chosen_f1 == pytest.approx(1.0)
    assert 0 < (mined.drawn_f1 or 0) < 1
    line = f"{mined.num_answer_pairs} answer pairs, {len(mined.pairs)} kept; "
    assert mined.summary().startswith(line)


def test_a_pair_too_long_for_a_sequence_is_unused(
    items: list[Item], pond_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    processor, limits = load_processor("tiny"), limits_of(load_recipe(pond_recipe))
    one = replace(items[0], conversations=items[0].conversations[:1])
    asked = one.conversations[0]
    both = (asked.answer, "wrong")
    found = []
    for spare in (0, -1):
        answer_with(monkeypatch, ["wrong", "right"], {asked.question: asked.answer})
        length = mining.num_pair_tokens(one, 0, both, processor, limits) + spare
        mined, _ = mine(FakeModel(), processor, [one], limits, mining_settings(max_tokens=length))
        found.append((len(mined.pairs), dict(mined.unused)))
        trees = pair_trees([one], mined.pairs, processor, limits, max_tokens=length)
        sizes = [TrainingSet([tree.item], processor, limits)[0].num_tokens for tree in trees]
        assert sizes == [length] * len(mined.pairs)
    assert found == [(1, {}), (0, {"too long": 1})]


def test_trees_contain_every_pair_once_with_training_targets(
    items: list[Item], pond_recipe: Path
) -> None:
    processor, limits = load_processor("tiny"), limits_of(load_recipe(pond_recipe))
    pairs = [
        Pair(n, k, one.question, one.answer, "There are none.", 1.0, 0.0, (-1.0 - k, -2.0))
        for n, item in enumerate(items)
        for k, one in enumerate(item.conversations)
    ]
    assert max(pair.question for pair in pairs) > 0
    longest = max(
        mining.num_pair_tokens(items[p.item], p.question, (p.chosen, p.rejected), processor, limits)
        for p in pairs
    )
    for max_tokens in (1024, longest):
        trees = pair_trees(items, pairs, processor, limits, max_tokens=max_tokens)
        assert sorted((p for tree in trees for p in tree.pairs), key=pair_key) == pairs
        assert (len(trees) == len(items)) == (max_tokens == 1024)
        references = [tree.reference() for tree in trees]
        made = PairSet(
            [tree.item for tree in trees],
            processor=processor,
            limits=limits,
            references=references,
        )
        for tree, sample in zip(trees, made, strict=False):
            assert sample.num_tokens == tree.item.num_tokens <= max_tokens
            for place, pair in enumerate(tree.pairs):
                for branch, answer in enumerate((pair.chosen, pair.rejected), start=2 * place + 1):
                    assert read_by(sample, branch) == alone_ids(
                        processor, items[pair.item], (pair.asked, answer), limits
                    )
            assert sample.reference.tolist() == [list(p.reference or ()) for p in tree.pairs]


def pair_key(pair: Pair) -> tuple[int, int]:
    return pair.item, pair.question


def read_by(sample: Any, branch: int) -> tuple[list[int], list[int]]:
    """What a branch reads, and its targets."""
    mine = (sample.branch_ids == 0) | (sample.branch_ids == branch)
    weighted = (sample.branch_ids == branch) & (sample.loss_weights > 0)
    return sample.input_ids[mine].tolist(), sample.target_ids[weighted].tolist()


def alone_ids(
    processor: Any, item: Item, messages: tuple[str, str], limits: Any
) -> tuple[list[int], list[int]]:
    asked = replace(item.conversations[0], question=messages[0], answer=messages[1])
    only = TrainingSet([replace(item, conversations=(asked,))], processor, limits)[0]
    return only.input_ids.tolist(), only.target_ids[only.loss_weights > 0].tolist()


def test_an_unreadable_tree_has_no_pairs(items: list[Item], pond_recipe: Path) -> None:
    """Its weight is 0, and the others keep their own references."""
    processor, limits = load_processor("tiny"), limits_of(load_recipe(pond_recipe))
    both = (items[0].conversations[0], replace(items[0].conversations[0], answer="No."))
    whole = replace(items[0], conversations=both)
    media = replace(whole.sample.media, paths=(Path("gone.mp4"),))
    gone = replace(whole, sample=replace(whole.sample, media=media))
    pairs = PairSet(
        [gone, whole],
        processor=processor,
        limits=limits,
        quarantine=True,
        references=[np.array([[-1, -2]], np.float32), np.array([[-3, -4]], np.float32)],
    )
    batch = collate_pairs([pairs[0], pairs[1]], pad_id=0)
    assert batch.reference.tolist() == [[-3.0, -4.0]]
    assert isinstance(batch.to("cpu"), PairBatch)
    assert [bool(one.fault) for one in batch.openings] == [True, False]
    module = PreferenceModule(drawn_lora(load_model("tiny")), SETTINGS, **LOSS)
    sums = module.sums(batch)
    assert float(sums.weight) == 1.0
    nothing = module.sums(collate_pairs([pairs[0]], pad_id=0))
    assert float(nothing.weight) == float(nothing.total.detach()) == 0.0
    nothing.total.backward()


def test_a_pairs_file_is_read_back_bit_identical(items: list[Item], tmp_path: Path) -> None:
    asked = items[0].conversations[0]
    reference = tuple(np.float32([-1 / 3, -2 / 7]).tolist())
    pair = Pair(0, 0, asked.question, asked.answer, "No.", 1.0, 0.25, reference)
    mined = Mined((pair,), {"cut": 2}, 1 / 3)
    write_pairs(tmp_path / "pairs.json", mined, items)
    assert read_pairs(tmp_path / "pairs.json", items) == mined
    other = replace(items[0], conversations=(replace(asked, question="Other?"),))
    with pytest.raises(UserError, match="question 0 of item 0 has changed"):
        read_pairs(tmp_path / "pairs.json", [other])
    (tmp_path / "pairs.json").write_text("{}")
    with pytest.raises(UserError, match="cannot be read"):
        read_pairs(tmp_path / "pairs.json", items)


# --- rewards -------------------------------------------------------------------------------------


def test_rewards_equal_the_scores_and_trl_can_call_them(items: list[Item]) -> None:
    """Called by TRL's `GRPOTrainer._calculate_rewards`; an answer without a score gets None."""
    trainer = pytest.importorskip("trl.trainer.grpo_trainer", reason="TRL is not installed")
    captions = of_task(items[0], "captions")
    first = items[0].conversations[0]
    texts = [first.answer, "There are none.", items[1].conversations[0].answer]
    grounding = GroundingReward([*items, captions])
    assert reward(captions, first, first.answer) is None
    assert grounding(texts[:1], item=[len(items)], question=[0]) == [None]
    bare = SimpleNamespace(
        accelerator=SimpleNamespace(device="cpu", gather=lambda x: x, is_main_process=True),
        reward_funcs=[grounding],
        reward_processing_classes=[None],
        reward_func_names=[grounding.__name__],
        environments=None,
        state=SimpleNamespace(global_step=0),
        args=SimpleNamespace(report_to=[]),
        _log_completion_extra=None,
        _log_metric=None,
    )
    inputs = [{"prompt": "", "item": n, "question": 0} for n in (0, 0, 1)]
    found = trainer.GRPOTrainer._calculate_rewards(bare, inputs, [""] * 3, texts, [[]] * 3)
    assert found[:, 0].tolist() == pytest.approx([1.0, 0.0, 1.0])


# --- an earlier run's adapter --------------------------------------------------------------------

LOSS: dict[str, Any] = {"beta": 0.1, "supervised_weight": 1.0}


def described(method: Any = "lora", **changed: Any) -> dict[str, Any]:
    described = {"method": method, "rank": 4, "alpha": 8.0, "targets": ["language", "connector"]}
    return described | {"rslora": False} | changed


@pytest.mark.parametrize("method", ["lora", "dora", "full"])
def test_an_adapter_is_trained_further(method: str, tmp_path: Path) -> None:
    """The same output and trainable weights, and no dropout in training mode."""
    model = draw(add_adapter(load_model("tiny"), dropout=0.2, **described(method)))
    if method == "full":
        for _, parameter in trainable_parameters(model):
            parameter.data *= 1.01
    save_adapter(model, tmp_path)
    again = continue_adapter(load_model("tiny"), tmp_path, **described(method)).train()
    names = {name for name, _ in trainable_parameters(model)}
    assert {name for name, _ in trainable_parameters(again)} == names
    stored = load_adapter(load_model("tiny"), tmp_path)
    batch = collate([encode_tree(load_processor("tiny"), "", [(QUESTION, CHOSEN)])], pad_id=0)
    with torch.no_grad():
        ours, theirs = (hidden_states(bare_model(one), batch) for one in (again, stored))
        base = hidden_states(load_model("tiny"), batch)
    assert torch.equal(ours, theirs)
    assert float((ours - base).abs().max()) > 1e-3
    save_adapter(again, tmp_path / "again")
    assert (tmp_path / "again").is_dir()


def test_a_pissa_adapter_continues_as_lora(tmp_path: Path) -> None:
    """With twice the rank and alpha, as the recipe's message says."""
    model = add_adapter(load_model("tiny"), dropout=0.0, **described("pissa"))
    keep_start(model, tmp_path)
    for _, parameter in trainable_parameters(model):
        parameter.data *= 1.05
    save_adapter(model, tmp_path)
    twice = described("lora", rank=8, alpha=16.0)
    again = continue_adapter(load_model("tiny"), tmp_path, **twice)
    batch = collate([encode_tree(load_processor("tiny"), "", [(QUESTION, CHOSEN)])], pad_id=0)
    with torch.no_grad():
        ours, theirs = (hidden_states(bare_model(one), batch) for one in (again, model.eval()))
    assert float((ours - theirs).abs().max()) < 1e-3 * float(theirs.abs().max())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"rank": 8, "alpha": 16.0},
            "with rank: 4, alpha: 8.0; expected the recipe's adapter.rank: 8, adapter.alpha: 16.0;",
        ),
        ({"rslora": True}, "with rslora: False"),
        ({"method": "dora", "rank": 8}, "with method: lora; expected .* adapter.method: dora;"),
        ({"method": "full"}, "with method: lora"),
        ({"targets": ["language"]}, r"with targets: \['connector', 'language'\]"),
    ],
)
def test_an_adapter_that_differs_from_the_recipe_is_an_error(
    changed: dict[str, Any], message: str, tmp_path: Path
) -> None:
    save_adapter(add_adapter(load_model("tiny"), dropout=0.0, **described()), tmp_path)
    with pytest.raises(UserError, match=message):
        continue_adapter(load_model("tiny"), tmp_path, **described(**changed))


def test_a_missing_adapter_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no trained adapter"):
        continue_adapter(load_model("tiny"), tmp_path, **described())


# --- normalization -------------------------------------------------------------------------------


class Observed(PreferenceModule):
    """Keeps the gradients that the optimizer gets."""

    gradients: dict[str, torch.Tensor]

    def configure_gradient_clipping(self, optimizer: Any, *_: Any, **__: Any) -> None:
        named = trainable_parameters(self)
        self.gradients = {name: p.grad.clone() for name, p in named if p.grad is not None}


def test_micro_batches_give_the_gradient_of_one_big_batch(
    items: list[Item], pond_recipe: Path
) -> None:
    """Rows with one, two and three pairs; the first has three times the weight."""
    processor, limits = load_processor("tiny"), limits_of(load_recipe(pond_recipe))
    pairs = [
        Pair(n, k, one.question, one.answer, "There are none.", 1.0, 0.0, (-20.0, -5.0))
        for n, item in enumerate(items)
        for k, one in enumerate(item.conversations[: n + 1])
    ]
    weighted = [replace(item, loss_weight=3.0 if n == 0 else 1.0) for n, item in enumerate(items)]
    trees = pair_trees(weighted, pairs, processor, limits, max_tokens=1024)
    references = [tree.reference() for tree in trees]
    options = {"processor": processor, "limits": limits, "references": references}
    samples = list(map(PairSet([tree.item for tree in trees], **options).__getitem__, range(3)))
    assert len({len(sample.reference) for sample in samples}) > 1
    found = []
    for batches in ([samples], [[one] for one in samples]):
        module = Observed(drawn_lora(load_model("tiny"), ["language"], std=0.05), SETTINGS, **LOSS)
        trainer = L.Trainer(
            max_steps=1,
            accumulate_grad_batches=len(batches),
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        joined = [collate_pairs(batch, pad_id=0) for batch in batches]
        trainer.fit(module, torch.utils.data.DataLoader(joined, batch_size=None))
        found.append((module.gradients, dict(trainer.callback_metrics)))
    (whole, logged), (parts, logged_parts) = found
    assert worst_difference(parts, whole) < 1e-6
    for name, figure in logged.items():
        assert float(logged_parts[name]) == pytest.approx(float(figure), abs=1e-5), name


# --- a run ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def earlier(pond: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a supervised run of a few steps and its recipe."""
    folder = tmp_path_factory.mktemp("earlier")
    source = f"format: cvat_video, path: {pond / 'labels'}, media: {pond / 'clips'}"
    recipe = folder / "recipe.yaml"
    recipe.write_text(
        f"""\
model: {{name: tiny}}
adapter: {{rank: 4, alpha: 8, dropout: 0.1, targets: [language, connector]}}
data: {{train: [{{{source}}}], val: [{{{source}}}], num_workers: 0}}
video: {{max_frames: 8}}
optim: {{lr: 1.0e-3, warmup_steps: 1}}
trainer: {{max_steps: 6, batch_size: 1, accumulate_grad_batches: 2, precision: 32-true}}
eval: {{max_questions: 4, max_new_tokens: 48}}
output: {{dir: {folder / "run"}}}
""",
        encoding="utf-8",
    )
    train(load_recipe(recipe), QUIET)
    return folder


def preference_recipe(earlier: Path, out: Path, *overrides: str) -> Recipe:
    more = [f"preference.from_run={earlier / 'run'}", f"output.dir={out}", "adapter.dropout=0"]
    return load_recipe(earlier / "recipe.yaml", [*more, *overrides])


@pytest.fixture(scope="module")
def whole(earlier: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A preference run without interruption."""
    out = tmp_path_factory.mktemp("whole") / "run"
    train(preference_recipe(earlier, out, "eval.every_steps=3"), QUIET)
    return RunFolder(out)


def adapter_of(run: RunFolder) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(run.adapter / "adapter_model.safetensors")


def test_first_loss_is_ln_2_and_the_report_is_complete(whole: RunFolder) -> None:
    header, first, *rest = read_metrics(whole.root)
    assert header[:4] == ["step", "train_loss", "data_wait", "preference_loss"]
    logged = dict(zip(header, first, strict=True))
    assert float(logged["preference_loss"]) == pytest.approx(math.log(2), abs=1e-4)
    assert float(logged["margin"]) == float(logged["drift"]) == 0.0
    assert len(rest) == 5
    last = dict(zip(header, rest[-1], strict=True))
    assert float(last["margin"]) > 0
    assert float(last["drift"]) > 0
    report = json.loads(whole.report.read_text())["preference"]
    pairs = json.loads(whole.pairs.read_text())
    assert report["answer_pairs"] == report["pairs"] + sum(report["unused"].values())
    assert report["pairs"] == len(pairs["pairs"]) > 0
    assert report["margin"]["first"] == pytest.approx(0, abs=1e-5)
    assert report["margin"]["last"] == pytest.approx(float(last["margin"]), abs=1e-4)
    assert 0 < report["drawn_f1"] < 1
    assert all(pair["chosen_f1"] >= pair["rejected_f1"] + 0.2 for pair in pairs["pairs"])


@pytest.mark.slow
def test_reference_is_the_earlier_run(whole: RunFolder, earlier: Path) -> None:
    """Recomputed after training from the supervised run's files, sequence by sequence."""
    recipe = load_recipe(whole.recipe)
    processor = load_processor("tiny")
    items, _ = read_items(recipe.data.train, recipe, processor)
    stored = read_pairs(whole.pairs, items)
    models = {
        name: bare_model(load_adapter(load_model("tiny"), folder / "adapter"))
        for name, folder in (("reference", earlier / "run"), ("trained", whole.root))
    }
    limits = limits_of(recipe)
    moved = 0.0
    for pair in stored.pairs[:4]:
        asked = items[pair.item].conversations[pair.question]
        for answer, reference in zip((pair.chosen, pair.rejected), pair.reference, strict=True):
            one = replace(items[pair.item], conversations=(replace(asked, answer=answer),))
            batch = collate([TrainingSet([one], processor, limits)[0]], pad_id=0)
            with torch.no_grad():
                again = float(whole_log_prob(models["reference"], batch))
                moved = max(moved, abs(float(whole_log_prob(models["trained"], batch)) - again))
            assert again == pytest.approx(reference, abs=3e-5 * max(1.0, abs(again)))
    assert moved > 1e-2


@pytest.mark.slow
def test_resume_is_bit_identical(
    whole: RunFolder, earlier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a resumed run computes neither answers nor the reference."""
    recipe = preference_recipe(earlier, tmp_path / "parted", "eval.every_steps=3")
    with stopping_after(3):
        assert train(recipe, QUIET).steps == 3
    run = RunFolder(tmp_path / "parted")
    halfway, pairs = adapter_of(run), run.pairs.read_text()
    torch.manual_seed(12345)
    with monkeypatch.context() as patched:
        patched.setattr(run_preference, "make_pairs", None)
        patched.setattr(run_preference, "with_reference", None)
        assert train(recipe, QUIET, resume=True).steps == 6
    ours, theirs = adapter_of(run), adapter_of(whole)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert any(not torch.equal(ours[name], halfway[name]) for name in halfway)
    assert run.pairs.read_text() == pairs == whole.pairs.read_text()
    drop = "data_wait"
    tables = [
        [[cell for name, cell in zip(rows[0], row, strict=True) if name != drop] for row in rows]
        for rows in map(read_metrics, (run.root, whole.root))
    ]
    assert tables[0] == tables[1]


@pytest.mark.slow
def test_a_preference_run_evaluates_and_exports(
    whole: RunFolder, earlier: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its export is neither the base nor the first run."""
    assert main(["evaluate", str(whole.root)]) == 0
    assert "F1" in capsys.readouterr().out
    result = export_run(whole, tmp_path / "export", dtype="float32")
    assert result.verification.max_logit_diff < 1e-4
    assert result.tensors.merged
    num_pairs = json.loads(whole.report.read_text())["preference"]["pairs"]
    card = (tmp_path / "export" / "README.md").read_text()
    assert f" on {num_pairs} pairs of its own answers" in card
    of_earlier = export_run(RunFolder(earlier / "run"), tmp_path / "earlier", dtype="float32")
    assert set(of_earlier.tensors.merged) == set(result.tensors.merged)
    models = [load_model(str(tmp_path / name)) for name in ("export", "earlier")]
    ours, theirs = (dict(model.named_parameters()) for model in models)
    assert any(not torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.slow
def test_full_weights_are_trained_further(earlier: Path, tmp_path: Path) -> None:
    """The base's digests come from the first run, which has changed the base's weights."""
    first = load_recipe(
        earlier / "recipe.yaml",
        [
            *("adapter.method=full", "adapter.dropout=0", "optim.lr=1e-4", "trainer.max_steps=2"),
            f"output.dir={tmp_path / 'first'}",
        ],
    )
    train(first, QUIET)
    more = [f"preference.from_run={tmp_path / 'first'}", f"output.dir={tmp_path / 'second'}"]
    second = load_recipe(RunFolder(tmp_path / "first").recipe, more)
    train(second, QUIET)
    run = RunFolder(tmp_path / "second")
    assert run.base.read_text() == RunFolder(tmp_path / "first").base.read_text()
    assert float(read_metrics(run.root)[1][3]) == pytest.approx(math.log(2), abs=1e-4)
    assert export_run(run, tmp_path / "export", dtype="float32").verification.max_logit_diff < 1e-4


@pytest.mark.parametrize(
    "way",
    [
        ["data.feature_cache.dir=CACHE"],
        pytest.param(
            [
                "model.attention=flash",
                "trainer.gradient_checkpointing=true",
                "trainer.batch_size=2",
            ],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ["data.num_workers=1", "preference.supervised_weight=0"], marks=pytest.mark.slow
        ),
    ],
    ids=" ".join,
)
def test_other_ways_of_computing_start_at_ln_2(
    way: list[str], earlier: Path, tmp_path: Path
) -> None:
    language = [f"output.dir={tmp_path / 'first'}", "adapter.targets=[language]"]
    train(load_recipe(earlier / "recipe.yaml", [*language, "trainer.max_steps=2"]), QUIET)
    way = [text.replace("CACHE", str(tmp_path / "cache")) for text in way]
    more = [*language[1:], f"preference.from_run={tmp_path / 'first'}", "trainer.max_steps=2"]
    recipe = preference_recipe(earlier, tmp_path / "out", *more, *way)
    train(recipe, QUIET)
    header, first, second = read_metrics(tmp_path / "out")
    losses = [float(row[header.index("preference_loss")]) for row in (first, second)]
    assert losses[0] == pytest.approx(math.log(2), abs=1e-4)
    assert losses[1] != losses[0]


# --- errors --------------------------------------------------------------------------------------

SMALL = """\
model: {name: tiny}
data: {train: [{format: jsonl, path: train.jsonl}]}
output: {dir: runs/x}
"""


def issues_of(text: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(SMALL + text, "r.yaml")
    return str(caught.value).splitlines()


def test_every_issue_of_the_section_has_its_line() -> None:
    assert issues_of("preference:\n  beta: 0\n  min_f1_gap: 1.5\n  form_run: runs/a\n") == [
        "r.yaml:5: preference.beta: must be greater than 0, not 0",
        "r.yaml:6: preference.min_f1_gap: must be at most 1, not 1.5",
        "r.yaml:7: preference.form_run: no such key; did you mean preference.from_run?",
    ]
    (line,) = issues_of("preference: {beta: 0.1}\n")
    assert line.startswith("r.yaml:4: preference.from_run: is missing (Folder of the finished run")
    (line,) = issues_of("preference: runs/x\n")
    assert line == "r.yaml:4: preference: must be a section, not 'runs/x'"


def test_an_issue_in_the_section_hides_no_conflict() -> None:
    lines = issues_of("preference: {from_run: runs/a, beta: 0}\nadapter: {dropout: 0.1}\n")
    assert [line.split(": ")[:2] for line in lines] == [
        ["r.yaml:4", "preference.beta"],
        ["r.yaml:5", "adapter.dropout"],
    ]


def test_unsupported_settings_are_refused_together() -> None:
    lines = issues_of(
        "preference: {from_run: runs/a}\nadapter: {method: pissa}\nloss: {weighting: root_both}\n"
        "trainer: {devices: 2}\n"
    )
    keys = [line.split(": ")[1] for line in lines]
    assert sorted(keys) == [
        "adapter.dropout",
        "adapter.method",
        "loss.weighting",
        "trainer.devices",
    ]
    (line,) = issues_of(
        "preference: {from_run: runs/a}\nadapter: {dropout: 0}\n"
        "trainer: {strategy: fsdp, devices: 1}\n"
    )
    assert "without trainer.strategy: fsdp" in line


def test_a_folder_without_a_run_is_an_error_before_anything_is_read(
    earlier: Path, tmp_path: Path
) -> None:
    recipe = preference_recipe(earlier, tmp_path / "out", f"preference.from_run={tmp_path}")
    with pytest.raises(UserError, match=r"no recipe.yaml; expected a run folder"):
        train(recipe, QUIET)
    shutil.copytree(earlier / "run", tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / "adapter")
    recipe = preference_recipe(
        earlier, tmp_path / "out", f"preference.from_run={tmp_path / 'copy'}"
    )
    with pytest.raises(UserError, match="no adapter; expected the folder of a finished run"):
        train(recipe, QUIET)
    assert not (tmp_path / "out").exists()
    (found,) = [one for one in check_recipe(recipe) if one.where == "preference.from_run"]
    assert (found.severity, "no adapter" in found.text) == ("error", True)


@pytest.mark.parametrize("part", ["weights", "tokenizer"])
def test_a_run_on_another_base_is_an_error(part: str, earlier: Path, tmp_path: Path) -> None:
    shutil.copytree(earlier / "run", tmp_path / "copy")
    base = tmp_path / "copy" / "base.json"
    base.write_text(json.dumps(json.loads(base.read_text()) | {part: "0123"}))
    recipe = preference_recipe(
        earlier, tmp_path / "out", f"preference.from_run={tmp_path / 'copy'}"
    )
    with pytest.raises(UserError, match="differs from the one trained on"):
        train(recipe, QUIET)


def test_a_run_without_pairs_leaves_no_run_folder(
    earlier: Path, tmp_path: Path, items: list[Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mining, "better_and_worse", lambda *_, **__: "alike")
    with pytest.raises(
        UserError, match=r"no pair to train on .*closer in F1 .*preference\.pairs_per_question"
    ):
        train(preference_recipe(earlier, tmp_path / "out"), QUIET)
    assert not (tmp_path / "out").exists()


def test_supervised_batches_keep_the_supervised_loss(items: list[Item], pond_recipe: Path) -> None:
    """So `val/loss` of a preference run shows what happens to the labels' answers."""
    processor, limits = load_processor("tiny"), limits_of(load_recipe(pond_recipe))
    batch = collate([TrainingSet(items, processor, limits)[0]], pad_id=0)
    model = drawn_lora(load_model("tiny"))
    ours = PreferenceModule(model, SETTINGS, **LOSS).sums(batch)
    theirs = MolmoModule(model, SETTINGS, z_loss=0.0).sums(batch)
    assert torch.equal(ours.total, theirs.total)
    assert not isinstance(batch, PairBatch)
    assert batch.openings == (Opening(str(items[0].sample.media.paths[0]), "file"),)
