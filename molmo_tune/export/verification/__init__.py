"""Verification that an export answers as the run did."""
