"""Opening images, decoding videos and sampling frames; independent of labels."""
