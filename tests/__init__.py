"""A package in the full sense, so that no other `tests` (sleap-io installs one) hides it."""
