"""Adapters in their own folders: in PEFT's format, and in the one vLLM serves."""
