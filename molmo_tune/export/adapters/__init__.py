"""Adapters as folders of their own: PEFT's format, and the one vLLM serves."""
