"""Shapes in pixels: bounds, masks, points, and interpolation between labeled frames."""
