"""Names of settings in other trainers, and the recipe key with the same meaning.

Collected from ms-swift, LLaMA-Factory, axolotl, unsloth, TRL / Hugging Face, torchtune and litgpt.
They are not accepted, because two names for one setting lead to recipes that set it twice; the
error names our key. `_REMARKS` has the differences in meaning.
"""

from __future__ import annotations

_OURS_TO_THEIRS = {
    "adapter": "lora lora_config peft_config",
    "adapter.alpha": "lora_alpha",
    "adapter.dropout": "lora_dropout",
    "adapter.method": "tuner_type train_type finetuning_type use_peft peft_method",
    "adapter.rank": "r lora_r lora_rank",
    "adapter.rslora": "use_rslora peft_use_rslora",
    "adapter.targets": "target_modules lora_target lora_target_modules lora_target_linear "
    "lora_modules freeze_vit freeze_llm freeze_aligner freeze_vision_tower "
    "freeze_multi_modal_projector freeze_language_model freeze_mm_modules",
    "data.max_tokens": "max_length max_seq_length max_seq_len cutoff_len sequence_len "
    "model_max_length seq_len packing_length pad_to_sequence_len",
    "data.num_workers": "dataloader_num_workers dataset_num_proc preprocessing_num_workers",
    "data.packing": "sample_packing neat_packing packed padding_free packing_strategy "
    "eval_packing eval_sample_packing",
    "data.train": "dataset datasets train_dataset dataset_name dataset_dir",
    "data.val": "val_dataset eval_dataset test_datasets val_size val_set_size split_dataset_ratio",
    "eval.batch_size": "per_device_eval_batch_size eval_batch_size",
    "eval.every_steps": "eval_steps eval_strategy evaluation_strategy evals_per_epoch",
    "eval.max_new_tokens": "max_completion_length generation_max_length",
    "export.dtype": "export_dtype merge_dtype",
    "image.max_crops": "max_pixels image_max_pixels",
    "loss.weighting": "loss_token_weighting loss_scale",
    "model.attention": "attn attn_impl attn_implementation flash_attn flash_attention",
    "model.dtype": "torch_dtype",
    "model.name": "base_model model_name_or_path model_name model_id model_id_or_path "
    "checkpoint_dir pretrained_model_name_or_path",
    "model.quantize": "load_in_4bit load_in_8bit quantization_bit quant_bits quantization "
    "quant_method",
    "optim": "optimizer optimizer_config",
    "optim.betas": "adam_beta1 adam_beta2",
    "optim.eps": "adam_epsilon",
    "optim.min_lr_ratio": "min_lr cosine_min_lr_ratio",
    "optim.lora_plus_ratio": "loraplus_lr_ratio lorap_lr_ratio",
    "optim.lr": "learning_rate lora_lr base_lr",
    "optim.lr_connector": "aligner_lr connector_lr connector_learning_rate mm_projector_lr",
    "optim.lr_vision": "vit_lr vision_lr vit_learning_rate vision_tower_lr",
    "optim.name": "optim_name optimizer_type",
    "optim.schedule": "lr_scheduler lr_scheduler_type",
    "optim.warmup_steps": "warmup warmup_ratio num_warmup_steps lr_warmup_steps",
    "output.dir": "output_dir out_dir save_dir run_name",
    "output.save_total_limit": "save_top_k keep_last_n_checkpoints save_steps",
    "preference": "rlhf_type pref_loss",
    "preference.beta": "pref_beta",
    "preference.from_run": "ref_model ref_adapters",
    "preference.supervised_weight": "rpo_alpha pref_ftx",
    "seed": "random_seed data_seed random_state",
    "trainer.accelerator": "device use_cpu",
    "trainer.accumulate_grad_batches": "gradient_accumulation_steps grad_accum",
    "trainer.batch_size": "per_device_train_batch_size micro_batch_size train_batch_size "
    "global_batch_size",
    "trainer.devices": "num_gpus nproc_per_node num_processes",
    "trainer.gradient_checkpointing": "use_gradient_checkpointing activation_checkpointing "
    "enable_activation_checkpointing vit_gradient_checkpointing disable_gradient_checkpointing",
    "trainer.gradient_clip_val": "max_grad_norm gradient_clipping max_norm",
    "trainer.offload_activations": "activation_offloading activation_cpu_offload",
    "trainer.log_every_n_steps": "logging_steps log_every log_interval",
    "trainer.max_steps": "num_train_epochs num_epochs epochs max_epochs train_steps",
    "trainer.precision": "bf16 fp16 tf32 mixed_precision",
    "trainer.strategy": "deepspeed fsdp distributed_strategy",
    "video.max_fps": "fps video_fps sample_fps",
    "video.max_frames": "nframes num_frames fps_max_frames video_maxlen",
    "video.sampling": "frame_sample_mode",
}

_STEPS_NOT_FRACTION = "a number of steps, not a fraction"
_FROZEN = "components that it does not list are frozen"
_BITS = "nf4 or int8"
_STEPS_NOT_EPOCHS = "a number of steps, not of epochs"
_ONE_PACKING = "true or false, for training only"

_REMARKS = {
    "adam_beta1": "both betas in one list",
    "adam_beta2": "both betas in one list",
    "bf16": "bf16-true or bf16-mixed",
    "cosine_min_lr_ratio": "a fraction of the peak",
    "disable_gradient_checkpointing": "opposite meaning",
    "epochs": _STEPS_NOT_EPOCHS,
    "eval_packing": _ONE_PACKING,
    "eval_sample_packing": _ONE_PACKING,
    "evals_per_epoch": "a number of steps",
    "fp16": "16-mixed",
    "freeze_aligner": _FROZEN,
    "freeze_language_model": _FROZEN,
    "freeze_llm": _FROZEN,
    "freeze_mm_modules": _FROZEN,
    "freeze_multi_modal_projector": _FROZEN,
    "freeze_vision_tower": _FROZEN,
    "freeze_vit": _FROZEN,
    "global_batch_size": "per device, before accumulation",
    "image_max_pixels": "a number of crops",
    "load_in_4bit": _BITS,
    "load_in_8bit": _BITS,
    "loss_scale": "the name of a rule",
    "lora_target": "components, not module names",
    "lora_target_linear": "components, not module names",
    "lora_target_modules": "components, not module names",
    "max_epochs": _STEPS_NOT_EPOCHS,
    "max_pixels": "a number of crops",
    "min_lr": "a fraction of the peak",
    "num_epochs": _STEPS_NOT_EPOCHS,
    "num_train_epochs": _STEPS_NOT_EPOCHS,
    "packing_strategy": _ONE_PACKING,
    "pad_to_sequence_len": "batches are padded to their longest sequence",
    "padding_free": _ONE_PACKING,
    "quant_bits": _BITS,
    "quantization_bit": _BITS,
    "quantization": _BITS,
    "save_steps": "the number of checkpoints to keep",
    "split_dataset_ratio": "separate label files",
    "target_modules": "components, not module names",
    "val_set_size": "separate label files",
    "val_size": "separate label files",
    "warmup_ratio": _STEPS_NOT_FRACTION,
}

RENAMED_KEYS: dict[str, str] = {
    "data.max_bad_media": "max_unreadable_media",
    "data.train.labels": "format",
    "data.val.labels": "format",
    "eval.max_samples": "max_questions",
    "optim.final_lr_share": "min_lr_ratio",
    "output.keep": "save_total_limit",
    "preference.couples": "pairs_per_question",
    "preference.f1_gap": "min_f1_gap",
}
"""Dotted key of version 0.1, without indices -> its name today, in the same section."""

FOREIGN_KEYS: dict[str, str] = {
    theirs: ours for ours, names in _OURS_TO_THEIRS.items() for theirs in names.split()
}
"""Name in another trainer -> our dotted key."""

FOREIGN_VALUES: dict[str, str] = {
    "aligner": "connector",
    "bf16": "bfloat16",
    "fa2": "flash",
    "flash_attention_2": "flash",
    "fp16": "float16",
    "fp32": "float32",
    "half": "float16",
    "llm": "language",
    "merger": "connector",
    "mm_projector": "connector",
    "projector": "connector",
    "qlora": "lora",
    "vision_tower": "vision",
    "visual": "vision",
    "vit": "vision",
}
"""Value in another trainer -> ours; applies only if ours is among the choices."""


def remark_on(theirs: str) -> str:
    """Return how our key differs in meaning from the foreign name; empty if it does not."""
    return _REMARKS.get(theirs, "")
