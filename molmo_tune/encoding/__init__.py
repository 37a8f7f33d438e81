"""Conversations and pixels to token ids, targets, loss weights, packs and batches."""
