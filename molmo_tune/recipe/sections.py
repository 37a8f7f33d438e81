"""The sections of a recipe, and the only place where a default is written.

Every section is frozen and rejects unknown keys. The string below a field is its documentation, its
description in the JSON Schema (`molmo_tune.recipe.saving`) and part of the error if it is missing.
Values are strict: the string ``"5"`` is not a number. Relative paths are relative to the working
directory and are stored as written.

Limitations: no file is read (`loader`), data are not looked at, and torch is not imported. Rules
between two keys are in `conflicts`; the loader applies them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
)
from pydantic_core import PydanticCustomError

from molmo_tune.choices import (
    Accelerator,
    AdapterMethod,
    Attention,
    BaseQuantization,
    BoxStyle,
    Component,
    Decoder,
    Dtype,
    ExportDtype,
    LayeredComponent,
    OptimizerName,
    Precision,
    Sampling,
    Schedule,
    Strategy,
    Units,
    Weighting,
)
from molmo_tune.label_formats import FORMAT_MODULES

if TYPE_CHECKING:
    LabelFormat = str
else:
    LabelFormat = Literal[tuple(FORMAT_MODULES)]

_FROM_YAML = Field(strict=False)  # YAML has lists and strings where Python has tuples and paths

Text = Annotated[str, Field(min_length=1)]
FilePath = Annotated[Path, _FROM_YAML]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Fraction = Annotated[float, Field(ge=0, le=1)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]


class Section(BaseModel):
    """Base of all sections: frozen, strict, no unknown keys, no infinities."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        defer_build=True,  # build the validators for the first recipe, not at import
    )


class ModelSection(Section):
    """The base model."""

    name: Text
    """Hub id or folder of the base model, or `tiny` for the bundled tiny model."""
    dtype: Dtype = "auto"
    """Base dtype; auto: bfloat16 (else float16) on GPU, float32 on CPU."""
    attention: Attention = "auto"
    """Attention backend, always exact; auto: `flash` on GPUs since Ampere with 16-bit precision,
    else `sdpa`."""
    quantize: BaseQuantization | None = None
    """Quantize the frozen linear layers of the language model to 4-bit (`nf4`, QLoRA) or 8-bit."""


class AdapterSection(Section):
    """The weights trained on top of the frozen base."""

    method: AdapterMethod = "lora"
    """`lora`; `dora`: LoRA of the direction with a trained magnitude per row; `pissa`: LoRA
    initialized from principal components; `full`: all weights of the targets."""
    rank: PositiveInt = 32
    """Rank of the LoRA matrices."""
    alpha: PositiveFloat = 64.0
    """LoRA scale: the update is multiplied by alpha / rank."""
    dropout: BelowOne = 0.05
    """Fraction of the adapter's inputs dropped in training."""
    rslora: bool = False
    """Scale by alpha / sqrt(rank) instead of alpha / rank."""
    targets: Annotated[
        tuple[Component, ...],
        Field(min_length=1, strict=False, json_schema_extra={"uniqueItems": True}),
    ] = ("language",)
    """Components that get an adapter; the others stay frozen."""

    @field_validator("targets")
    @classmethod
    def _listed_once(cls, targets: tuple[Component, ...]) -> tuple[Component, ...]:
        repeated = sorted({target for target in targets if targets.count(target) > 1})
        if repeated:
            reason = f"lists {' and '.join(repeated)} more than once"
            raise PydanticCustomError("repeated", "{reason}", {"reason": reason})
        return targets


class Columns(Section):
    """Columns of a plain table."""

    image: Text | None = None
    """Column with the file name of the image."""
    label: Text | None = None
    """Column with the class."""
    box: Annotated[tuple[Text, ...], Field(max_length=4, strict=False)] = ()
    """Four columns of a box, in the order of the source's `box`, or one column with lists."""
    point: Annotated[tuple[Text, ...], Field(max_length=2, strict=False)] = ()
    """Two columns of a point (x, y), or one column with lists."""


class DataSource(Section):
    """One label file or folder, with its media and its data template."""

    format: LabelFormat
    """Name of the label format."""
    path: FilePath
    """Label file, or folder of label files."""
    media: FilePath | None = None
    """Media folder (default: see molmo-tune formats NAME)."""
    template: Text = "video_pointing"
    """Data template: name of a bundled one, or path of your own."""
    weight: PositiveFloat | None = None
    """Sampling weight relative to the other sources: its share of the training samples is the
    weight over the sum of all weights, whatever the sources' sizes. Default: 1.0 if another source
    of `data.train` has a weight; with none set, every sample comes once per epoch."""
    loss_weight: PositiveFloat = 1.0
    """Factor on the loss weight of this source's answer tokens."""
    max_samples: PositiveInt | None = None
    """Maximum samples read (default: all)."""
    columns: Columns = Field(default_factory=Columns)
    """Columns of a plain table (`format: table`)."""
    units: Units | None = None
    """Units of a plain table: pixels, percent (0 to 100) or fractions (0 to 1) of the image."""
    box: BoxStyle = "xyxy"
    """Boxes of a plain table: two corners, corner and size, or center and size."""


class CacheSection(Section):
    """A cache folder on disk."""

    dir: FilePath | None = None
    """Folder; concurrent runs can share it (default: no cache)."""
    max_gb: PositiveFloat = 50.0
    """Maximum size in GB; the least recently used entries are deleted first."""


class DataSection(Section):
    """Data to train and evaluate on."""

    train: Annotated[tuple[DataSource, ...], Field(min_length=1, strict=False)]
    """Sources to train on."""
    val: Annotated[tuple[DataSource, ...], _FROM_YAML] = ()
    """Sources to evaluate on."""
    max_tokens: PositiveInt = 16384
    """Maximum tokens per sequence."""
    packing: bool = False
    """Pack several samples into one sequence of up to `max_tokens`, to reduce padding."""
    max_crops_per_pack: PositiveInt = 128
    """Maximum image crops and video frames per pack."""
    shuffle: bool = True
    """Shuffle training samples every epoch."""
    num_workers: NonNegativeInt = 2
    """Number of processes that read and encode samples; 0: the training process itself."""
    prefetch: PositiveInt = 2
    """Number of batches that each of these processes prepares ahead."""
    cache_mb: NonNegativeInt = 0
    """Maximum memory for decoded and encoded media, in MB per process; 0 disables the cache."""
    frame_cache: CacheSection = Field(default_factory=CacheSection)
    """Cache of decoded frames at the model's input size; later epochs and runs decode nothing."""
    feature_cache: CacheSection = Field(default_factory=CacheSection)
    """Cache of vision features; needs a frozen vision tower and connector."""
    max_unreadable_media: Fraction = 0.02
    """Maximum fraction of unreadable training media; more is an error."""


class VideoSection(Section):
    """Sampling and decoding of video frames."""

    max_frames: PositiveInt = 128
    """Maximum frames sampled per video."""
    max_fps: PositiveFloat = 2.0
    """Maximum frames sampled per second of video."""
    sampling: Sampling = "uniform_last_frame"
    """`uniform_last_frame`: evenly spaced, including the last frame, as Molmo 2 was trained except
    for tracking; `fps`: at the highest integer rate that divides the video's own rate and covers
    the video (at most 10 fps), as Molmo 2 was trained to track."""
    decoder: Decoder = "pyav"
    """Decoding library. `pyav` was correct on all clips tested; `torchcodec` is correct or raises
    an error; `decord` returns wrong frames for some AVI, TS, MPEG and HEVC files."""
    timeout_s: PositiveFloat = 120.0
    """Maximum wait for the next frame of a file, in seconds; then the file counts as unreadable."""


class ImageSection(Section):
    """Resolution of images."""

    max_crops: PositiveInt = 8
    """Maximum high-resolution crops per image, in addition to the overview."""


class LossSection(Section):
    """Loss weights of answer tokens."""

    weighting: Weighting = "flat"
    """`flat`: all answer tokens weigh the same; `root_length`: weights are divided by the square
    root of the answer's length; `root_branches`: by the square root of the number of questions
    about the same media; `root_both`: by both."""
    z_loss: NonNegativeFloat = 1e-4
    """Weight of the squared log-normalizer of the logits."""


class OptimSection(Section):
    """The optimizer (AdamW) and the learning-rate schedule."""

    lr: PositiveFloat = 1e-4
    """Peak learning rate."""
    lr_connector: PositiveFloat | None = None
    """Peak learning rate of the connector (default: `lr`)."""
    lr_vision: PositiveFloat | None = None
    """Peak learning rate of the vision tower (default: `lr`)."""
    weight_decay: NonNegativeFloat = 0.0
    """Decoupled weight decay."""
    weight_decay_connector: NonNegativeFloat | None = None
    """Weight decay of the connector (default: `weight_decay`)."""
    weight_decay_vision: NonNegativeFloat | None = None
    """Weight decay of the vision tower (default: `weight_decay`)."""
    lora_plus_ratio: PositiveFloat | None = None
    """LoRA+: learning rate of the B matrices divided by that of the A matrices (often 16)."""
    name: OptimizerName = "adamw"
    """PyTorch's AdamW, or bitsandbytes' AdamW with 8-bit state, also in paged memory (GPU only)."""
    betas: Annotated[tuple[BelowOne, BelowOne], _FROM_YAML] = (0.9, 0.95)
    """Decay rates of the two moment estimates."""
    eps: PositiveFloat = 1e-6
    """Term added to the denominator."""
    schedule: Schedule = "cosine"
    """Learning-rate schedule after warmup."""
    warmup_steps: NonNegativeInt | None = None
    """Number of optimizer steps to the peak learning rate (default: 3% of max_steps)."""
    min_lr_ratio: Fraction = 0.1
    """Learning rate at the last step, as a fraction of the peak; no effect with `constant`."""


class TrainerSection(Section):
    """The training loop; most names are Lightning Trainer's."""

    max_steps: PositiveInt = 600
    """Number of optimizer steps."""
    accumulate_grad_batches: PositiveInt = 4
    """Number of batches per optimizer step and device."""
    batch_size: PositiveInt = 1
    """Number of sequences per batch and device."""
    gradient_clip_val: PositiveFloat | None = 1.0
    """Maximum gradient norm of each component (language model, connector, vision tower), clipped
    separately, as Molmo 2 was trained; null disables clipping."""
    precision: Precision = "auto"
    """Training precision; `auto` follows `model.dtype`."""
    accelerator: Accelerator = "auto"
    """Device type."""
    devices: PositiveInt | Literal["auto"] = 1
    """Number of devices; `auto` uses all."""
    strategy: Strategy = "auto"
    """Data parallelism on several devices: each has all weights (`ddp`) or a fraction (`fsdp`)."""
    log_every_n_steps: PositiveInt = 10
    """Optimizer steps between two log lines where the output is not a terminal."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, more time."""
    checkpointed_parts: Annotated[
        tuple[LayeredComponent, ...], Field(min_length=1, strict=False)
    ] = ("language", "vision")
    """Components whose layers are recomputed with `gradient_checkpointing`."""
    offload_activations: bool = False
    """Offload saved activations to CPU memory: less GPU memory, slower."""


class PreferenceSection(Section):
    """DPO on pairs of answers that a finished run gives to the training questions.

    The run's answers to the questions of `data.train` are sampled several times, with
    `eval.max_new_tokens` and `eval.batch_size`; their scores against the labels decide which of two
    answers is preferred. Training continues that run's adapter, which is also the reference. The
    `loss` section is not used.
    """

    from_run: FilePath
    """Folder of the finished run to improve, with the same model and adapter."""
    beta: PositiveFloat = 0.1
    """DPO beta; lower values let the model drift further from the reference."""
    min_f1_gap: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Minimum difference in F1 between the two answers of a pair."""
    pairs_per_question: PositiveInt = 2
    """Number of answer pairs sampled per question."""
    supervised_weight: NonNegativeFloat = 1.0
    """Weight of the preferred answer's cross-entropy per token, which keeps it likely."""
    max_questions: PositiveInt | None = None
    """Maximum questions, sampled with `seed` (default: all)."""


class EvalSection(Section):
    """Answer generation in evaluate, training and preference."""

    every_steps: PositiveInt | None = None
    """Number of optimizer steps between evaluations on `data.val` (default: no evaluation)."""
    max_questions: PositiveInt = 64
    """Maximum questions per evaluation."""
    max_new_tokens: PositiveInt = 192
    """Maximum tokens per answer."""
    batch_size: PositiveInt = 8
    """Number of questions answered at once."""


class OutputSection(Section):
    """Where the run is stored."""

    dir: FilePath
    """Run folder."""
    save_total_limit: PositiveInt = 2
    """Number of checkpoints to keep, in addition to the last one."""


class ExportSection(Section):
    """Exported checkpoints."""

    dtype: ExportDtype = "base"
    """Dtype of the exported weights; `base` keeps the base's."""


class Recipe(Section):
    """All settings of one fine-tuning run."""

    seed: Seed = 7
    """Seed of all random choices."""
    model: ModelSection
    """The base model."""
    adapter: AdapterSection = Field(default_factory=AdapterSection)
    """The weights trained on top of the frozen base."""
    data: DataSection
    """Data to train and evaluate on."""
    video: VideoSection = Field(default_factory=VideoSection)
    """Sampling and decoding of video frames."""
    image: ImageSection = Field(default_factory=ImageSection)
    """Resolution of images."""
    loss: LossSection = Field(default_factory=LossSection)
    """Loss weights of answer tokens."""
    optim: OptimSection = Field(default_factory=OptimSection)
    """The optimizer (AdamW) and the learning-rate schedule."""
    trainer: TrainerSection = Field(default_factory=TrainerSection)
    """The training loop."""
    preference: PreferenceSection | None = None
    """DPO on a finished run's own answers (default: supervised training on the labels)."""
    eval: EvalSection = Field(default_factory=EvalSection)
    """Answer generation in evaluate, training and preference."""
    output: OutputSection
    """Where the run is stored."""
    export: ExportSection = Field(default_factory=ExportSection)
    """Exported checkpoints."""
