"""COCO JSON of images, and its relatives for videos."""
