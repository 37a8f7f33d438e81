"""Weight files and the files beside them, read and written row by row."""
