"""Tracked boxes and masks: MOTChallenge, KITTI, SOT datasets, Scalabel and others."""
