"""Boxes and masks of tracked objects: MOT, KITTI, SOT, Scalabel and others."""
