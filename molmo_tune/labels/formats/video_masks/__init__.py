"""Masks of objects in videos: SA-V, DAVIS-like folders, referring expressions."""
