"""From a conversation and its pixels to token ids, targets, loss weights and batches."""
