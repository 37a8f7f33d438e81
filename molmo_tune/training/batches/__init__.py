"""Batches of a run, in an order that can be resumed."""
