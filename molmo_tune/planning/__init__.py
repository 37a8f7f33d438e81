"""A forecast of what a run needs, before it is started and without its weights."""
