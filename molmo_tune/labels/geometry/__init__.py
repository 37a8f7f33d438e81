"""Shapes in pixels: bounds, masks, the point of a shape, and what is between labeled frames."""
