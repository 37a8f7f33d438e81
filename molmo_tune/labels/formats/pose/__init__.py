"""Named and tracked points: DeepLabCut, SLEAP, TAP-Vid."""
