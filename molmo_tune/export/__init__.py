"""Merging, the hub weight layout, verification: from a run to a checkpoint that serves."""
