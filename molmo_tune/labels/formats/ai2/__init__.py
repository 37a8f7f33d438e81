"""Ai2's own datasets: PixMo, Molmo2-VideoPoint, Molmo2-VideoTrack, molmo2-track-instruction."""
