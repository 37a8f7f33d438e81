"""Events in videos: what happens, from when to when."""
