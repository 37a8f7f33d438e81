"""The model: loading Molmo 2, its attention, vision encoding, adapters and losses.

Loading:

    loading                 checkpoint to model and processor
    molmo                   the model as a type checker sees it
    fingerprint             digests of a base
    meta_model              a model without memory for its weights
    released_configs        configurations of the released sizes
    quantization            4-bit and 8-bit layers of the decoder

Training:

    adapters                what is trained, and how it is saved
    resume_adapter          the adapter of a finished run, trained further
    gradient_checkpointing  layers that recompute their activations

Computing:

    forward                 batch to hidden states
    attention_rule          which token attends to which
    attention_backends      how attention is computed, by device
    flash_attention         attention in pieces, merged
    flash_kernels           kernels of a piece
    rectangle_attention     attention example by example
    vision_encoding         patches to vision features
    feature_cache           vision features that are computed once
    loss                    supervised loss
    answer_log_probs        log-probabilities of answers
    preference_loss         loss of a pair
"""
