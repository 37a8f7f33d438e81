"""Masks of objects in videos: SA-V, folders of mask images, referring expressions."""
