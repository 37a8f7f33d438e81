"""Users' label files as `Sample`s: pixels and seconds of the original media, nothing of Molmo."""
