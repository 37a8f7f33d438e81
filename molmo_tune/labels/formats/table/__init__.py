"""Plain tables whose columns a recipe explains."""
