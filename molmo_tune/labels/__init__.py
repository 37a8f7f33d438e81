"""Users' label files as `Sample`s, in pixels and seconds of the original media."""
