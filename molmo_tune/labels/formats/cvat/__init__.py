"""CVAT: XML exports of images, videos and tags, and the REST API."""
