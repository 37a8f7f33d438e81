"""Verification of an export: against its run, its base and what vLLM needs."""
