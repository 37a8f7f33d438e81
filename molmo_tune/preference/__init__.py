"""Pairs of a better and a worse answer: made from a model's mistakes, kept, and put in batches."""
