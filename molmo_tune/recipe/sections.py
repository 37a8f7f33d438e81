"""The sections of a recipe, and the only place where a default is written.

Every section is frozen and refuses keys that it does not know; the text below a field is its
documentation, its description in the JSON schema (`molmo_tune.recipe.saving`) and part of the
message when it is missing. Values are taken strictly: the text ``"5"`` is not a number. Relative
paths are relative to the working directory and are left as they were written.

What it does not do: read files (`loader`), look at the data, or know torch. Rules that concern two
keys are in `agreement`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from molmo_tune.label_formats import FORMAT_MODULES
from molmo_tune.recipe.conflicts import conflicts

if TYPE_CHECKING:
    LabelFormat = str
else:
    LabelFormat = Literal[tuple(FORMAT_MODULES)]
Part = Literal["language", "connector", "vision"]

_READ_AS_WRITTEN = Field(strict=False)  # YAML has lists and text where Python has tuples and paths

Text = Annotated[str, Field(min_length=1)]
FilePath = Annotated[Path, _READ_AS_WRITTEN]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Share = Annotated[float, Field(ge=0, le=1)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]


class Section(BaseModel):
    """What all sections share: frozen, strict, no unknown keys, no infinities."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        defer_build=True,  # build the checks at the first recipe, not at import
    )


class ModelSection(Section):
    """The base that is fine-tuned."""

    name: Text
    """Hub id or folder of the base, or the word `tiny` for the bundled tiny base."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of the loaded base weights; `auto` keeps the one they were saved in."""
    attention: Literal["auto", "sdpa", "flex", "flash"] = "auto"
    """How attention is computed, always exactly; `auto` takes the fastest that works here."""
    quantize: Literal["nf4", "int8"] | None = None
    """Store the frozen linear layers of the language model in 4 bits (`nf4`, QLoRA) or in 8."""


class AdapterSection(Section):
    """What is trained on top of the frozen base."""

    method: Literal["lora", "dora", "pissa", "full"] = "lora"
    """`lora`; `dora`: LoRA of the direction and a magnitude per row; `pissa`: LoRA that starts from
    the weights' principal parts; `full`: train the weights of the targets themselves."""
    rank: PositiveInt = 32
    """Rank of the LoRA matrices."""
    alpha: PositiveFloat = 64.0
    """LoRA scale; the update is multiplied by alpha / rank."""
    dropout: BelowOne = 0.05
    """Share of the adapter's inputs that is dropped in training."""
    rslora: bool = False
    """Scale by alpha / sqrt(rank) instead of alpha / rank."""
    targets: Annotated[
        tuple[Part, ...],
        Field(min_length=1, strict=False, json_schema_extra={"uniqueItems": True}),
    ] = ("language",)
    """Parts of the model that get an adapter; parts that are not listed stay frozen."""

    @field_validator("targets")
    @classmethod
    def _named_once(cls, targets: tuple[Part, ...]) -> tuple[Part, ...]:
        twice = sorted({part for part in targets if targets.count(part) > 1})
        if twice:
            reason = f"names {' and '.join(twice)} more than once"
            raise PydanticCustomError("named_twice", "{reason}", {"reason": reason})
        return targets


class Columns(Section):
    """Which column of a plain table holds what."""

    image: Text | None = None
    """Column of the image's name."""
    label: Text | None = None
    """Column of the class."""
    box: Annotated[tuple[Text, ...], Field(max_length=4, strict=False)] = ()
    """The four columns of a box, in the order that the source's `box` says, or one with lists."""
    point: Annotated[tuple[Text, ...], Field(max_length=2, strict=False)] = ()
    """The two columns of a point, or one with lists."""


class DataSource(Section):
    """One label file or folder, with its media and its wording."""

    format: LabelFormat
    """Name of the label format."""
    path: FilePath
    """Label file, or the folder that holds the label files."""
    media: FilePath | None = None
    """Folder of the images or videos; by default the folder of the labels."""
    template: Text = "video_pointing"
    """Data template: the name of a bundled one, or the path of your own."""
    weight: PositiveFloat = 1.0
    """How often the source is drawn, relative to the other sources."""
    max_samples: PositiveInt | None = None
    """Read at most this many samples; by default all."""
    columns: Columns = Field(default_factory=Columns)
    """What the columns of a plain table mean (`format: table`)."""
    units: Literal["pixel", "percent", "unit"] | None = None
    """Units of a plain table: pixels, percent (0 to 100) or shares (0 to 1) of the sides."""
    box: Literal["xyxy", "xywh", "cxcywh"] = "xyxy"
    """What the box of a plain table is: two corners, corner and size, or center and size."""


class CacheSection(Section):
    """A folder on disk that spares work done before."""

    dir: FilePath | None = None
    """Folder, which several runs at once may share; by default nothing is kept."""
    max_gb: PositiveFloat = 50.0
    """Largest size, in gigabytes; what was used longest ago goes first."""


class DataSection(Section):
    """What is learned from."""

    train: Annotated[tuple[DataSource, ...], Field(min_length=1, strict=False)]
    """Sources to train on."""
    val: Annotated[tuple[DataSource, ...], _READ_AS_WRITTEN] = ()
    """Sources to evaluate on."""
    max_tokens: PositiveInt = 16384
    """Longest sequence, in tokens."""
    packing: bool = False
    """Put several samples in one sequence of up to `max_tokens`, so that little is padding."""
    max_crops_per_pack: PositiveInt = 128
    """With packing, most image crops and video frames in one sequence."""
    shuffle: bool = True
    """Draw training samples in random order."""
    num_workers: NonNegativeInt = 2
    """Processes that read and encode samples; 0 does it in the training process."""
    prefetch: PositiveInt = 2
    """Batches that each of these processes holds ready."""
    cache_mb: NonNegativeInt = 0
    """Memory for decoded and encoded media, in megabytes per loader process; 0 keeps none."""
    frame_cache: CacheSection = Field(default_factory=CacheSection)
    """Keep decoded frames at the model's size on disk: later passes and runs decode nothing."""
    feature_cache: CacheSection = Field(default_factory=CacheSection)
    """Keep vision features on disk, where neither vision encoder nor connector are trained."""
    max_unreadable_media: Share = 0.02
    """Largest share of training media that do not open or decode; more is an error."""


class VideoSection(Section):
    """How many frames of a video the model sees, and how they are read."""

    max_frames: PositiveInt = 128
    """Most frames sampled from one video."""
    max_fps: PositiveFloat = 2.0
    """Most frames sampled per second of video."""
    sampling: Literal["uniform_last_frame", "fps"] = "uniform_last_frame"
    """`uniform_last_frame`: evenly up to and with the last frame, as for everything but tracking;
    `fps`: at the highest whole rate that divides the video's own and spans the video (at most 10
    per second), as Molmo 2 was trained to track."""
    decoder: Literal["pyav", "decord", "torchcodec"] = "pyav"
    """Library that decodes. `pyav` is right on all clips that were tried; `torchcodec` is right or
    refuses; `decord` gives wrong frames of some AVI, TS, MPEG and HEVC files."""
    timeout_s: PositiveFloat = 120.0
    """Longest wait for the next frame of a file, in seconds; it then counts as bad."""


class ImageSection(Section):
    """How finely the model sees an image."""

    max_crops: PositiveInt = 8
    """Most high-resolution crops of one image, besides the overview."""


class LossSection(Section):
    """How the answer tokens are weighed."""

    weighting: Literal["flat", "root_length", "root_branches", "root_both"] = "flat"
    """`flat`: all answer tokens count the same; `root_length`: those of long answers count less,
    with the inverse square root of the length; `root_branches`: those of media with many questions
    count less, with the inverse square root of their number; `root_both`: both."""
    z_loss: NonNegativeFloat = 1e-4
    """Weight of the squared log-normalizer of the logits."""


class OptimSection(Section):
    """The optimizer (AdamW) and its schedule."""

    lr: PositiveFloat = 1e-4
    """Peak learning rate."""
    lr_connector: PositiveFloat | None = None
    """Peak learning rate of the connector; by default `lr`."""
    lr_vision: PositiveFloat | None = None
    """Peak learning rate of the vision encoder; by default `lr`."""
    weight_decay: NonNegativeFloat = 0.0
    """Decoupled weight decay."""
    weight_decay_connector: NonNegativeFloat | None = None
    """Weight decay of the connector; by default `weight_decay`."""
    weight_decay_vision: NonNegativeFloat | None = None
    """Weight decay of the vision encoder; by default `weight_decay`."""
    lora_plus_ratio: PositiveFloat | None = None
    """LoRA+: learning rate of the B matrices as a multiple of that of the A matrices (often 16)."""
    name: Literal["adamw", "adamw_8bit", "paged_adamw_8bit"] = "adamw"
    """AdamW as PyTorch has it, or bitsandbytes' with its state in 8 bits, or that in paged memory
    (the last on a GPU only)."""
    betas: Annotated[tuple[BelowOne, BelowOne], _READ_AS_WRITTEN] = (0.9, 0.95)
    """Decay rates of the two moments."""
    eps: PositiveFloat = 1e-6
    """Term added to the denominator."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """Course of the learning rate after warm-up."""
    warmup_steps: NonNegativeInt | None = None
    """Optimizer steps over which the learning rate rises to its peak; 3 % of them when not set."""
    min_lr_ratio: Share = 0.1
    """Learning rate at the last step, as a share of the peak."""


class TrainerSection(Section):
    """The loop; names and meanings are those of Lightning's Trainer."""

    max_steps: PositiveInt = 600
    """Number of optimizer steps."""
    accumulate_grad_batches: PositiveInt = 4
    """Batches per optimizer step and device."""
    batch_size: PositiveInt = 1
    """Sequences per batch and device."""
    gradient_clip_val: PositiveFloat | None = 1.0
    """Largest gradient norm of each part of the model (language model, connector, vision encoder:
    separately, as Molmo 2 was trained); null switches clipping off."""
    precision: Literal["32-true", "bf16-true", "bf16-mixed", "16-mixed", "auto"] = "auto"
    """Precision of the computation; `auto` takes the one that suits the device."""
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    """Kind of device."""
    devices: PositiveInt | Literal["auto"] = 1
    """Number of devices; `auto` takes all."""
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    """How several devices share the work: each with all weights (`ddp`) or a share (`fsdp`)."""
    log_every_n_steps: PositiveInt = 10
    """Optimizer steps between two log lines where the output is not a terminal."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, more time."""
    checkpointed_parts: Annotated[
        tuple[Literal["language", "vision"], ...], Field(min_length=1, strict=False)
    ] = ("language", "vision")
    """Parts of the model whose layers do so under `gradient_checkpointing`."""
    offload_activations: bool = False
    """Keep what the backward pass needs in the memory of the CPU: still less on the GPU, slower."""


class PreferenceSection(Section):
    """Training on pairs of answers (DPO) instead of on the labels' answers alone.

    A finished run answers the questions of `data.train`, each several times, as drawn and as
    `eval.max_new_tokens` and `eval.batch_size` say; the labels say which of two answers is the
    better one. That run's adapter is what is trained further, and the reference. The `loss`
    section is not used.
    """

    from_run: FilePath
    """Folder of the finished run that is to become better, with the same model and adapter."""
    beta: PositiveFloat = 0.1
    """How strongly the model is held to the run it comes from; less lets it go further."""
    min_f1_gap: Annotated[float, Field(gt=0, le=1)] = 0.2
    """By how much the F1 of two answers must differ for one of them to be the better one."""
    pairs_per_question: PositiveInt = 2
    """How many times two answers are drawn to each question."""
    supervised_weight: NonNegativeFloat = 1.0
    """Weight of the better answer's own cross-entropy per token, which keeps it likely."""
    max_questions: PositiveInt | None = None
    """Ask at most this many questions, drawn by `seed`; by default all."""


class EvalSection(Section):
    """Generation on `data.val` during training."""

    every_steps: PositiveInt | None = None
    """Optimizer steps between two evaluations; by default none takes place."""
    max_questions: PositiveInt = 64
    """Maximum questions per evaluation."""
    max_new_tokens: PositiveInt = 192
    """Longest answer, in tokens."""
    batch_size: PositiveInt = 8
    """Samples answered at once."""


class OutputSection(Section):
    """Where the run goes."""

    dir: FilePath
    """Folder of the run."""
    save_total_limit: PositiveInt = 2
    """Number of checkpoints to keep."""


class ExportSection(Section):
    """The deployable checkpoint."""

    dtype: Literal["base", "float32", "bfloat16"] = "base"
    """Precision of the exported weights; `base` is that of the base."""


class Recipe(Section):
    """Everything about one fine-tuning run."""

    seed: Seed = 7
    """Seed of every random choice."""
    model: ModelSection
    """The base that is fine-tuned."""
    adapter: AdapterSection = Field(default_factory=AdapterSection)
    """What is trained on top of the frozen base."""
    data: DataSection
    """What is learned from."""
    video: VideoSection = Field(default_factory=VideoSection)
    """How many frames of a video the model sees."""
    image: ImageSection = Field(default_factory=ImageSection)
    """How finely the model sees an image."""
    loss: LossSection = Field(default_factory=LossSection)
    """How the answer tokens are weighed."""
    optim: OptimSection = Field(default_factory=OptimSection)
    """The optimizer (AdamW) and its schedule."""
    trainer: TrainerSection = Field(default_factory=TrainerSection)
    """The loop."""
    preference: PreferenceSection | None = None
    """Training on pairs of answers, after a supervised run; by default on the labels' answers."""
    eval: EvalSection = Field(default_factory=EvalSection)
    """Generation on `data.val` during training."""
    output: OutputSection
    """Where the run goes."""
    export: ExportSection = Field(default_factory=ExportSection)
    """The deployable checkpoint."""

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        errors = [
            InitErrorDetails(
                type=PydanticCustomError("contradiction", "{reason}", {"reason": found.reason}),
                loc=found.key,
                input=None,
            )
            for found in conflicts(self)
        ]
        if errors:
            raise ValidationError.from_exception_data(type(self).__name__, errors)
        return self
