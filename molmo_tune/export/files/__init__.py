"""Weight files and their side files, read and written row by row."""
