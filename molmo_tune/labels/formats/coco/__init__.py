"""COCO JSON of images, and related formats of videos."""
