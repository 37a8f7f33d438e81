"""Ai2's own sets: PixMo, Molmo2-VideoPoint, Molmo2-VideoTrack and the instruction sets."""
