"""Events of videos: what happens, from when to when."""
